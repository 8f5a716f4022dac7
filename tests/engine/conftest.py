"""The suites below ``suites`` are run by the tests, not collected beside them."""

collect_ignore = ["suites"]
