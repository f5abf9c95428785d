"""Print the figures of every benchmark."""

from benchmarks import experts, planning, rules

planning.main()
experts.main()
rules.main()
