"""The table ``container`` and what is said of images: read in full, and refused with a place and a mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asynctest_kit.container_options import Build, ContainerOptions, CopiedFile, ImageSource, Ulimit, Volume
from asynctest_kit.errors import SettingsError
from asynctest_kit.provision.catalog import spec_for
from asynctest_kit.settings import load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("conf", "schema.sql", "docker/Dockerfile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read(folder: Path, toml: str, **environ: str):
    (folder / "pyproject.toml").write_text(toml, encoding="utf-8")
    return load(paths=[], directory=folder, environ=environ, options={})


def options(folder: Path, lines: str) -> ContainerOptions:
    return read(folder, f"[tool.asynctest_kit.services.postgres.container]\n{lines}").services["postgres"].container


def test_every_key(folder: Path) -> None:
    assert options(
        folder,
        """
        pull = "always"
        platform = "linux/arm64"
        build = { context = "docker", args = { A = "1" }, target = "dev", timeout = "2m" }
        memory = "512m"
        cpus = 1.5
        pids = 100
        shm-size = 1048576
        ulimits = { nofile = 1000, nproc = [10, 20] }
        volumes = ["data:/var/data", "./conf:/etc/conf:ro"]
        tmpfs = ["/run", "/scratch:size=64m"]
        init-scripts = ["schema.sql"]
        networks = ["back"]
        aliases = ["db"]
        user = 999
        working-dir = "/srv/"
        entrypoint = ["/entry.sh", "-x"]
        extra-hosts = { "api.internal" = "host-gateway" }

        [tool.asynctest_kit.services.postgres.container.files]
        "/etc/app.conf" = "conf"
        "/etc/key" = { content = "text", mode = "0600", owner = "999" }
        """,
    ) == ContainerOptions(
        pull="always",
        platform="linux/arm64",
        build=Build(context=str(folder / "docker"), arguments={"A": "1"}, target="dev", timeout=120.0),
        memory=512 << 20,
        cpus=1.5,
        pids=100,
        shm_size=1 << 20,
        ulimits=(Ulimit(name="nofile", soft=1000, hard=1000), Ulimit(name="nproc", soft=10, hard=20)),
        volumes=(
            Volume(source="data", target="/var/data"),
            Volume(source=str(folder / "conf"), target="/etc/conf", is_read_only=True),
        ),
        tmpfs={"/run": "", "/scratch": "size=64m"},
        init_scripts=(CopiedFile(target="", source=str(folder / "schema.sql")),),
        networks=("back",),
        aliases=("db",),
        user="999",
        working_dir="/srv",
        entrypoint=("/entry.sh", "-x"),
        extra_hosts={"api.internal": "host-gateway"},
        files=(
            CopiedFile(target="/etc/app.conf", source=str(folder / "conf")),
            CopiedFile(target="/etc/key", content="text", mode=0o600, owner=(999, 999)),
        ),
    )


def test_short_forms(folder: Path) -> None:
    given = options(folder, 'build = "docker"\ninit-scripts = "schema.sql"')
    assert given.build == Build(context=str(folder / "docker"))
    assert [script.source for script in given.init_scripts] == [str(folder / "schema.sql")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('memry = "1g"', 'container: unknown key "memry". Did you mean memory? Allowed: aliases, build, cpus'),
        ('memory = "much"', 'container.memory: "much" is no size. Allowed: bytes as a number, or e.g. "512m" or "2g".'),
        ('memory = "1k"', 'is too little. Allowed: at least "6m".'),
        ("memory = true", "true is no size"),
        ("cpus = 0", "container.cpus: 0 is no number of processors. Allowed: more than 0, e.g. 1.5."),
        ("pids = -1", "container.pids: -1 is not a count. Allowed: a whole number from 1."),
        ('pull = "sometimes"', '"sometimes" is unknown. Allowed: always, missing, never.'),
        ('platform = "arm"', '"arm" is no platform. Allowed: system and architecture, e.g. "linux/arm64".'),
        ('volumes = "data:/x"', 'container.volumes: "data:/x" must be a list.'),
        ('volumes = ["data"]', 'container.volumes.1: "data" is no volume. Allowed: "name:/path"'),
        ('volumes = ["data:/x:rx"]', '"data:/x:rx" is no volume'),
        ('volumes = ["data:x"]', '"x" is no place in a container. Allowed: an absolute path.'),
        ('volumes = ["./none:/x"]', "none was looked for, and is not there."),
        ('tmpfs = ["/"]', '"/" is no place in a container'),
        ('files = { "/a/../b" = "conf" }', '"/a/../b" is no place in a container'),
        ('files = { "/a" = "none" }', "none was looked for."),
        ('files = { "/a" = { } }', 'one of the keys "source" and "content" is needed, and not both.'),
        ('files = { "/a" = { content = "", source = "conf" } }', "and not both."),
        ('files = { "/a" = { content = "", mode = "rw" } }', '/a.mode: "rw" is no mode. Allowed: permission bits'),
        ('files = { "/a" = { content = "", mode = 600 } }', "600 is no mode"),
        ('files = { "/a" = { content = "", owner = "me" } }', '"me" is no owner. Allowed: numbers'),
        ('files = { "/a" = { content = "", ower = 1 } }', 'unknown key "ower". Did you mean owner?'),
        ('init-scripts = ["none.sql"]', "none.sql was looked for."),
        ('build = "none"', 'container.build.context: "none" is not a folder'),
        ('build = "."', 'container.build.dockerfile: "Dockerfile" is not a file in the context'),
        ('build = { dockerfile = "x" }', 'the key "context" is needed, the folder that has the Dockerfile.'),
        ('build = { context = "docker", args = { A = 1 } }', "build.args.A: must be a text; put it in quotes."),
        ('build = { context = "docker", timeout = "soon" }', 'build.timeout: "soon" is not a duration.'),
        ('networks = ["a b"]', '"a b" is no name. Allowed: letters, digits'),
        ('aliases = ["db"]', 'the key "networks" is needed too'),
        ('entrypoint = "/run"', "must be a list of words"),
        ("ulimits = { nofile = [2, 1] }", "ulimits.nofile: [2, 1] is no limit."),
        ("user = true", "true must be a text that is not empty."),
        ('working-dir = "srv"', '"srv" is no place in a container'),
    ],
)
def test_what_is_wrong_is_told_with_its_place(folder: Path, line: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        options(folder, line)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'pyproject.toml'}, [tool.asynctest_kit.services.postgres], container")
    assert problem in message


def test_where_images_come_from(folder: Path) -> None:
    toml = """
        [tool.asynctest_kit]
        image-prefix = "mirror.example:5000/hub"
        pull = "never"
        pull-stall = "2m"
        [tool.asynctest_kit.images]
        "postgres:17-alpine" = "registry.example/pg:17"
    """
    images = read(folder, toml).images
    expected = {"postgres:17-alpine": "registry.example/pg:17"}
    assert images == ImageSource(prefix="mirror.example:5000/hub", substitutes=expected, pull="never", stall=120.0)
    environ = {"ATK_PULL": "always", "ATK_IMAGE_PREFIX": "other.example", "ATK_PULL_STALL": "5s"}
    images = read(folder, toml, **environ).images
    assert (images.pull, images.prefix, images.stall) == ("always", "other.example", 5.0)


def test_services_are_published_openly_if_it_is_said(folder: Path) -> None:
    toml = "[tool.asynctest_kit]\npublish-openly = true"
    assert spec_for("redis", read(folder, toml)).publish_openly
    assert spec_for("redis", read(folder, "", ATK_PUBLISH_OPENLY="1")).publish_openly
    assert not spec_for("redis", read(folder, "")).publish_openly


def test_snapshots_are_kept_unless_they_are_turned_off(folder):
    assert spec_for("redis", read(folder, "")).snapshots
    assert not spec_for("redis", read(folder, "[tool.asynctest_kit]\nsnapshots = false")).snapshots
    assert not spec_for("redis", read(folder, "", ATK_SNAPSHOTS="0")).snapshots


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('[tool.asynctest_kit]\npull = "newest"', '[tool.asynctest_kit], pull: "newest" is unknown.'),
        ('[tool.asynctest_kit]\nimage-prefix = "https://x"', 'image-prefix: "https://x" is no name of an image.'),
        ("[tool.asynctest_kit]\npull-stall = 0", "pull-stall: 0 must be longer than 0 s."),
        ('[tool.asynctest_kit.images]\n"a:1" = 1', "[tool.asynctest_kit.images], a:1: 1 is no name of an image."),
    ],
)
def test_what_is_wrong_with_images_is_told(folder: Path, toml: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(folder, toml)
    assert problem in str(caught.value)
