"""Print the figures of every benchmark."""

from benchmarks import experts, planning, rules, weights
from benchmarks import decode, experts, planning, rules

planning.main()
experts.main()
rules.main()
weights.main()
decode.main([])
