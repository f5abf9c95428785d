"""Print the figures of every benchmark."""

from benchmarks import planning, rules

planning.main()
rules.main()
