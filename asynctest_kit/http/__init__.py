"""Standing in for what the service under test calls, and standing between it and what it uses.

- :mod:`asynctest_kit.http.mocks`: answers for HTTP calls, in the test's process
- :mod:`asynctest_kit.http.faults`: a proxy that makes connections slow, or breaks them
"""
