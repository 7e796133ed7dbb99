"""Runs are pushed to a bucket (moto's server) and to another machine (paramiko's server) and pulled again."""

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier

import pytest

from fixtures.comparison import fd
from fixtures.sharing import check_that_all_is_there, machines
from genbench.cli import main
from genbench.commands.push import main as push_runs
from genbench.errors import UserMistake
from genbench.runs.records import load_results
from genbench.sharing import remote
from genbench.sharing.git import is_repository
from genbench.sharing.remote import RemoteStore, is_remote


def needs(*names: str):
    return pytest.mark.skipif(
        not all(find_spec(name) for name in names), reason=f"{' and '.join(names)} not installed"
    )


needs_s3, needs_ssh = needs("s3fs", "moto", "flask"), needs("fsspec", "paramiko")


@pytest.fixture(scope="module")
def s3():
    """A server that speaks S3; its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": s3, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="team")
    yield "s3://team/runs"
    for one in client.list_objects_v2(Bucket="team").get("Contents", []):
        client.delete_object(Bucket="team", Key=one["Key"])
    client.delete_bucket(Bucket="team")


@pytest.fixture(scope="module")
def keys():
    import paramiko

    return paramiko.RSAKey.generate(2048), paramiko.RSAKey.generate(2048)


@pytest.fixture
def machine(keys, tmp_path, monkeypatch):
    """A machine that is known here; its address, the folder that it serves, what it serves it by."""
    from fixtures.ssh_server import serving

    host_key, user_key = keys
    served, home = tmp_path / ".served", tmp_path / ".home"
    served.mkdir()
    (home / ".ssh").mkdir(parents=True)
    user_key.write_private_key_file(str(home / ".ssh" / "id_rsa"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with serving(served, host_key, user_key) as (port, folder):
        line = f"[127.0.0.1]:{port} {host_key.get_name()} {host_key.get_base64()}\n"
        (home / ".ssh" / "known_hosts").write_text(line)
        yield f"ssh://me@127.0.0.1:{port}/team/runs", served, folder


@pytest.fixture(
    params=[
        pytest.param("s3", marks=[needs_s3, pytest.mark.slow]),
        pytest.param("ssh", marks=needs_ssh),
    ]
)
def team(request):
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    return request.getfixturevalue("machine")[0]


@pytest.fixture
def home(tmp_path, finished):
    for seed in range(2):
        finished([fd(5.0 + seed)], f"run-{seed}", seed=seed)
    return tmp_path


def push(team: str, home: Path, *more: str) -> int:
    return main(["push", team, "--outputs", str(home), *more])


def pull(team: str, outputs: Path) -> int:
    return main(["pull", team, "--outputs", str(outputs)])


def test_runs_arrive_and_pushing_again_does_nothing(home, team, capsys):
    assert pull(team, home / ".there") == 2
    assert f"{team} holds no shared runs" in capsys.readouterr().err
    assert push(team, home) == 0
    assert f"2 of 2 runs pushed to {team}" in capsys.readouterr().out
    assert pull(team, home / ".there") == 0
    assert "2 new, 0 updated, 0 known" in capsys.readouterr().out
    own, theirs = load_results([], home), load_results([], home / ".there")
    assert [one.to_dict() for one in own] == [one.to_dict() for one in theirs]
    assert push(team, home) == push(team, home / ".there") == 0
    assert capsys.readouterr().out.count("0 of 2 runs pushed") == 2


@pytest.mark.slow
def test_two_that_push_between_each_other_s_writes_lose_nothing(home, team, finished, monkeypatch):
    """Before every write of one push another one, of a run of its own and of the same ones, is made."""
    others = [finished([fd(9.0)], f"other-{number}", seed=9) for number in range(20)]
    both = [home / "run-0", home / "run-1"]
    real, inside, pushed = RemoteStore._put, [], []

    def interrupted(self, name, content):
        if not inside:
            inside.append(name)
            for run in [others[len(pushed)], *both]:
                RemoteStore(team).add(run)
            pushed.append(others[len(pushed)].name)
            inside.clear()
        real(self, name, content)

    monkeypatch.setattr(RemoteStore, "_put", interrupted)
    assert push(team, home, *map(str, both)) == 0
    monkeypatch.setattr(RemoteStore, "_put", real)
    assert pull(team, home / ".there") == 0
    arrived = {run.run_id for run in load_results([], home / ".there")}
    assert pushed and arrived == {"run-0", "run-1", *pushed}


@pytest.mark.slow
def test_a_place_that_breaks_off_in_the_middle_loses_nothing(home, team, capsys, monkeypatch):
    real, written = RemoteStore._put, []

    def gone(self, name, content):
        if len(written) == 4:
            raise ConnectionResetError(104, "Connection reset by peer")
        written.append(name)
        real(self, name, content)

    monkeypatch.setattr(RemoteStore, "_put", gone)
    assert push(team, home) == 2
    assert "connection reset by peer; what was pushed before is kept" in capsys.readouterr().err
    assert [one.run_id for one in RemoteStore(team).manifests()] == ["run-0"]
    monkeypatch.setattr(RemoteStore, "_put", real)
    assert push(team, home) == 0
    assert [one.run_id for one in RemoteStore(team).manifests()] == ["run-0", "run-1"]


@needs_ssh
def test_a_machine_that_hangs_up_in_the_middle_leaves_nothing_half(home, machine, capsys):
    team, served, folder = machine
    opened = []

    def hangs_up(path):
        opened.append(path)
        return len(opened) > 4

    folder.broken = staticmethod(hangs_up)
    assert push(team, home) == 2
    captured = capsys.readouterr().err
    assert f"cannot write to {team}" in captured and "push again" in captured
    folder.broken = None
    assert push(team, home) == 0
    assert pull(team, home / ".there") == 0
    assert len(load_results([], home / ".there")) == 2
    assert not list(served.rglob("*.partial"))


@needs_ssh
def test_folders_that_another_push_makes_first_are_taken(home, machine, monkeypatch):
    import paramiko

    team, served, _ = machine
    real = paramiko.SFTPClient.mkdir

    def late(self, path, mode=0o777):
        Path(f"{served}{path}").mkdir(parents=True, exist_ok=True)
        real(self, path, mode)

    monkeypatch.setattr(paramiko.SFTPClient, "mkdir", late)
    assert push(team, home) == 0
    assert pull(team, home / ".there") == 0
    assert len(load_results([], home / ".there")) == 2


@needs_ssh
def test_a_machine_that_is_not_known_or_not_there_is_not_spoken_to(home, machine, capsys):
    team, served, _ = machine
    known = home / ".home/.ssh/known_hosts"
    line = known.read_text()
    known.write_text("")
    assert push(team, home) == 2
    assert "cannot be reached" in (told := capsys.readouterr().err) and "known_hosts" in told
    known.write_text(line)
    assert not list(served.iterdir())
    assert push("ssh://me:secret@127.0.0.1:1/team", home) == 2
    told = capsys.readouterr().err
    assert "ssh://me@127.0.0.1:1/team cannot be reached" in told and "secret" not in told


@needs_ssh
def test_a_git_repository_on_another_machine_is_no_folder_of_runs(home, machine, capsys):
    team, served, _ = machine
    (served / "team/runs/refs").mkdir(parents=True)
    (served / "team/runs/HEAD").write_text("ref: refs/heads/main\n")
    assert push(team, home) == 2
    assert "is a git repository: write its address as user@host:path" in capsys.readouterr().err


@pytest.mark.slow
@needs_s3
def test_a_bucket_that_cannot_be_used_is_a_sentence(home, bucket, capsys, monkeypatch):
    assert push("s3://nobody/runs", home) == 2
    assert "cannot write to s3://nobody/runs: the specified bucket does not exist" in (
        capsys.readouterr().err
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(remote, "PATIENCE", 1)
    assert push(bucket, home) == 2
    assert "what was pushed before is kept" in capsys.readouterr().err


def test_addresses_are_told_apart():
    remotes = ["s3://b/runs", "ssh://me@host/team", "sftp://host/team"]
    assert all(map(is_remote, remotes))
    others = ["/team/runs", "git@host:team/runs.git", "ssh://git@host/runs.git", "https://h/r.git"]
    assert not any(map(is_remote, others)) and all(map(is_repository, others[1:]))
    for address in ("ssh://host", "s3:///x", "ssh://host/"):
        with pytest.raises(UserMistake, match="names no folder"):
            RemoteStore(address)


@pytest.mark.slow
def test_sixteen_that_push_at_once_lose_nothing(home, team, finished):
    """In threads of one process, each with a connection of its own: what could be lost is lost at the server."""
    ready = Barrier(16)

    def pushed(outputs):
        ready.wait()
        return push_runs([team, "--outputs", str(outputs)])

    with ThreadPoolExecutor(16) as pool:
        assert [*pool.map(pushed, machines(home, finished, 16))] == [0] * 16
    assert pull(team, home / ".there") == 0
    check_that_all_is_there(home / ".there", 16)
    assert push(team, home / ".there") == 0
