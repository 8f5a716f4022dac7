"""``atk run`` from outside: exit codes, errors, reports."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import anyio
import pytest

pytestmark = pytest.mark.anyio

PASSING = """
    import anyio, pytest

    @pytest.mark.anyio
    @pytest.mark.parametrize("number", range(3))
    async def test_passes(number):
        await anyio.sleep(0.01)

    def test_sync():
        pass
"""

FAILING = """
    import pytest

    @pytest.mark.anyio
    async def test_fails():
        assert [1, 2] == [1, 3]
"""


async def test_all_passed_is_0_and_the_budget_is_told(project, atk):
    finished = await atk("run", ".", cwd=project(test_passing__py=PASSING))

    assert finished.code == 0, finished.out + finished.err
    assert "4 passed" in finished.out
    assert "budget 30 s" in finished.out
    assert finished.err == ""


async def test_a_failure_is_1_and_shows_pytests_explanation(project, atk):
    finished = await atk("run", ".", cwd=project(test_failing__py=FAILING))

    assert finished.code == 1
    assert "At index 1 diff: 2 != 3" in finished.out


OVERRIDDEN = """
    import pytest

    @pytest.fixture(scope="module")
    def anyio_backend():
        return "asyncio"
"""

BACKENDS = """
    import pytest

    @pytest.mark.anyio
    async def test_marked():
        pass

    @pytest.mark.anyio
    @pytest.mark.parametrize("n", [1])
    async def test_with_parameters(n):
        pass

    async def test_with_a_service(redis):
        pass

    async def test_unmarked():
        pass

    @pytest.mark.asyncio
    async def test_of_another_plugin():
        pass
"""


async def test_ids_name_the_backend_as_the_readme_says(project, atk):
    root = project(test_backends__py=BACKENDS, conftest__py="", test_overridden__py=f"{OVERRIDDEN}{BACKENDS}")
    chosen = ("test_backends.py", "test_overridden.py::test_marked", "test_overridden.py::test_with_a_service")
    listed = await atk("run", "--collect-only", "-q", *chosen, cwd=root)
    ids = {line.partition("::")[2] for line in listed.out.splitlines() if line.startswith("test_backends.py::")}
    assert ids == {
        "test_unmarked",
        "test_of_another_plugin",
        *(f"test_marked[{backend}]" for backend in anyio.get_available_backends()),
        *(f"test_with_parameters[{backend}-1]" for backend in anyio.get_available_backends()),
        *(f"test_with_a_service[{backend}]" for backend in anyio.get_available_backends()),
    }, listed
    assert [line for line in listed.out.splitlines() if line.startswith("test_overridden.py::")] == list(chosen[1:])


async def test_no_tests_is_5_and_no_budget_is_told(project, atk):
    finished = await atk("run", ".", cwd=project(test_empty__py=""))

    assert finished.code == 5
    assert "budget" not in finished.out


async def test_a_short_option_of_pytests_may_hold_any_letter(project, atk):
    finished = await atk("run", "-kpasses and not h", "-ocache_dir=.cache", cwd=project(test_passing__py=PASSING))

    assert "3 passed, 1 deselected" in finished.out


@pytest.mark.parametrize("option", ["-h", "--help"])
async def test_help_is_ours(project, atk, option):
    finished = await atk("run", option, cwd=project(test_passing__py=PASSING))

    assert finished.code == 0
    assert "--explain-plan" in finished.out


@pytest.mark.parametrize(("strict", "code"), [(True, 6), (False, 0)])
async def test_a_missed_budget_is_6_only_if_strict(project, atk, strict, code):
    flags = ["--budget-strict"] if strict else []
    finished = await atk("run", "--budget", "1ms", *flags, ".", cwd=project(test_passing__py=PASSING))

    assert finished.code == code, finished.out + finished.err


async def test_a_failure_outranks_a_missed_budget(project, atk):
    finished = await atk("run", "--budget", "1ms", "--budget-strict", ".", cwd=project(test_failing__py=FAILING))

    assert finished.code == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "place"),
    [
        (("--budget", "soon"), {}, "--budget"),
        (("--provider", "podman"), {}, "--provider"),
        ((), {"ATK_CONCURRENCY": "many"}, "ATK_CONCURRENCY"),
        ((), {"ATK_BUDGTE": "30s"}, "ATK_BUDGTE"),
    ],
)
async def test_a_wrong_setting_is_4_and_its_place_is_named(project, atk, arguments, environment, place):
    finished = await atk("run", *arguments, ".", cwd=project(test_passing__py=PASSING), **environment)

    assert finished.code == 4
    assert finished.err.startswith("atk: ")
    assert place in finished.err
    assert finished.out == ""


async def test_a_wrong_key_in_the_file_names_file_table_and_key(project, atk):
    root = project(test_passing__py=PASSING)
    (root / "pyproject.toml").write_text("[tool.asynctest_kit]\nconcurency = 8\n")
    finished = await atk("run", ".", cwd=root)

    assert finished.code == 4
    for part in ("pyproject.toml", "tool.asynctest_kit", "concurency", "concurrency"):
        assert part in finished.err


async def test_a_wrong_mark_is_4_and_names_the_test(project, atk):
    suite = """
        import pytest

        @pytest.mark.atk(exclusiv=True)
        async def test_marked():
            pass
    """
    finished = await atk("run", ".", cwd=project(test_marked__py=suite))

    assert finished.code == 4
    assert "test_marked.py::test_marked" in finished.out + finished.err
    assert "unknown argument 'exclusiv'" in finished.out + finished.err


async def test_pytests_options_are_pytests(project, atk):
    root = project(test_passing__py=PASSING, test_failing__py=FAILING)
    finished = await atk("run", "-k", "passes", "-q", "--junitxml", "junit.xml", ".", cwd=root)

    assert finished.code == 0
    suite = ET.parse(root / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert [case.get("name") for case in suite.iter("testcase")] == [f"test_passes[{n}]" for n in range(3)]


async def test_collect_only_runs_nothing_and_tells_no_budget(project, atk):
    finished = await atk("run", "--collect-only", "-q", ".", cwd=project(test_failing__py=FAILING))

    assert finished.code == 0
    assert "test_failing.py::test_fails" in finished.out
    assert "budget" not in finished.out


async def test_the_json_reports_phases_cover_the_wall_time(project, atk):
    root = project(test_passing__py=PASSING)
    finished = await atk("run", "--report-json", "report.json", ".", cwd=root)
    report = json.loads((root / "report.json").read_text())
    phases = sum(phase["duration_s"] for phase in report["phases"])

    assert finished.code == 0
    assert phases == pytest.approx(report["run"]["wall_s"], rel=0.05)
    assert phases <= finished.seconds * 1.05


async def test_a_report_that_cannot_be_written_is_told_before_the_run(project, atk):
    root = project(test_passing__py=PASSING)
    finished = await atk("run", "--report-json", "pyproject.toml/report.json", ".", cwd=root)

    assert finished.code == 4
    assert "pyproject.toml/report.json" in finished.err
    assert "passed" not in finished.out


async def test_help_says_what_a_newcomer_needs(project, atk):
    finished = await atk("run", "--help", cwd=project())

    assert finished.code == 0
    for word in ("--provider", "--budget", "--concurrency", "--report-json", "pytest"):
        assert word in finished.out
