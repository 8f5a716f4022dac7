"""``atk migrations check``, as a user runs it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.anyio

EMBEDDED = {"ATK_PROVIDER": "embedded"}

TWO = """
[tool.asynctest_kit.services.postgres]
migrations = { sql = "sql", round-trip = "rows" }
[tool.asynctest_kit.services.billing]
kind = "postgres"
migrations = { alembic = "alembic.ini" }
"""


def verdicts(finished):
    """Of each check, by service and title."""
    lines = [line for line in finished.out.splitlines() if line[:1] not in (" ", "") and "," in line[:28]]
    return {line[:28].strip(): line[28:35].strip() for line in lines}


async def test_every_check_has_its_verdict(project, atk):
    root = project(
        pyproject__toml=TWO,
        alembic__ini="[alembic]\nscript_location = scripts\n",
        # Python reads this at its start: a machine on which nobody has installed alembic.
        sitecustomize__py="import sys; sys.modules['alembic'] = None",
    )
    for folder in ("sql", "rows", "scripts"):
        (root / folder).mkdir()
    (root / "sql" / "01.sql").write_text("CREATE TABLE users (name text)")
    (root / "sql" / "01.down.sql").write_text("DROP TABLE users")
    (root / "sql" / "02.sql").write_text("DELETE FROM users; CREATE SEQUENCE places")
    (root / "sql" / "02.down.sql").write_text("SELECT 1")
    (root / "rows" / "01.sql").write_text("INSERT INTO users VALUES ('ann')")
    found = await atk("migrations", "check", cwd=root, PYTHONPATH=str(root), **EMBEDDED)
    assert found.code == 1, found.err
    seen = verdicts(found)
    assert seen, found.out + found.err
    assert [seen[f"postgres, {title}"] for title in ("single head", "upgrade", "models match")] == ["ok", "ok", "-"]
    for title in ("up and down", "base is empty", "data survives"):
        assert seen[f"postgres, {title}"] == "FAULT"
    assert "    +sequence public.places bigint INCREMENT 1\n" in found.out
    assert "    - {'name': 'ann'}\n" in found.out
    assert [verdict for check, verdict in seen.items() if check.startswith("billing")] == ["FAULT", *"-----"]
    assert found.out.count("which is not installed for") == 1
    assert found.out.count("pip install 'asynctest_kit[sqlalchemy]'") == 1
    assert found.out.count('could not run, for the same reason as "single head"\n') == 4
    assert found.out.endswith("4 to be mended.\n")


async def test_good_migrations_hold(project, atk):
    root = project(
        pyproject__toml='[tool.asynctest_kit.services.postgres]\nmigrations = { sql = "." }\n', one__sql="SELECT 1"
    )
    found = await atk("migrations", "check", "postgres", cwd=root, **EMBEDDED)
    assert (found.code, found.out.splitlines()[-1]) == (0, "The migrations hold."), found.err
    assert len(verdicts(found)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "No service has migrations, so there is nothing to check. Say in pyproject.toml"),
        (("postgres",), "No service called 'postgres' has migrations. Those that have: none."),
    ],
)
async def test_nothing_to_check_is_a_mistake(project, atk, arguments, message):
    told = await atk("migrations", "check", *arguments, cwd=project())
    assert told.code == 4
    assert told.err.startswith(f"atk: {message}")


async def test_an_extension_that_is_not_there_is_told_in_full_once(project, atk):
    root = project(
        pyproject__toml='[tool.asynctest_kit.services.postgres]\nextensions = ["citex"]\n',
        test_it__py="""
            import pytest

            @pytest.mark.parametrize("number", range(3))
            async def test_it(pg, number):
                pass

            async def test_in_a_clone(pg_database):
                pass
        """,
    )
    run = await atk("run", cwd=root, **EMBEDDED)
    assert run.code == 1, run.out
    assert run.out.count("Did you mean citext?") >= 4
    assert run.out.count("Available there: ") == 1
    assert run.out.count("  told in full for test_it.py::test_") == 3
