"""Service specs in, endpoints out. Knows no pytest.

A :class:`~asynctest_kit.provision.client.Client` asks the project's supervisor, a process of its own; the supervisor
asks the providers in order (docker, embedded, external) and keeps what they start until its last client has gone.
"""
