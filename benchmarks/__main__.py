"""Print the figures of every benchmark."""

from benchmarks import decode, experts, planning, rules, weights

planning.main()
experts.main()
rules.main()
weights.main()
decode.main([])
