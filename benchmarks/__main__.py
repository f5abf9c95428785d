"""Print the figures of every benchmark."""

from benchmarks import experts, planning, rules, weights

planning.main()
experts.main()
rules.main()
weights.main()
