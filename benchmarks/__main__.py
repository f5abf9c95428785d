"""Run every benchmark."""

from benchmarks import decode, expert_plans, planning, rules, weight_reading

planning.main()
expert_plans.main()
rules.main()
weight_reading.main()
decode.main([])
