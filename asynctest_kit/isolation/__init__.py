"""Endpoints in, per-test leases out: what makes tests that share one server safe to run at once.

The ladder, from the cheapest rung up; each module's docstring says what its rung does not isolate.

- ``sandbox``, ``postgres``: a held connection and one transaction a test, rolled back at its end
- ``sqlalchemy``: SQLAlchemy's async engine in a sandbox
- ``templates``: migrated once into a template, cloned for a run or for one test
- ``seeds``, ``builders``, ``table_state``: rows to start with, to make, and to compare
- ``cleanups``: for what no rollback undoes
- ``migration_checks``: what migrations must be able to do, each tried on an empty database of its own
- ``redis``: a logical database of its own, flushed on release

Nothing is imported here: each module imports its driver, and only a test that needs the service pays for it.
"""
