"""Calling the service under test, standing in for what it calls, and standing between it and what it uses.

- :mod:`asynctest_kit.http.apps`: the application under test, and how it is reached
- :mod:`asynctest_kit.http.client`: calls of it, and what is expected of the answers
- :mod:`asynctest_kit.http.mocks`: answers for HTTP calls, in the test's process
- :mod:`asynctest_kit.http.stub_server`: answers by WireMock or MockServer, each test its own
- :mod:`asynctest_kit.http.faults`: a proxy that makes connections slow, or breaks them
"""
