"""What servers, people and other processes may do to a download, and what becomes of it."""

import contextlib
import typing as tp

import pytest
from hub_server import COMMIT, CONFIG, FILES, MODEL, Server, git_blob, sha256

from orchestrator import __main__, errors, files
from orchestrator.cli import weights as checkpoints
from orchestrator.weights import transfer
from orchestrator.weights.hub import Hub
from orchestrator.weights.lock import Locked, WeightsLock
from orchestrator.weights.store import CheckpointUnavailable, Weights
from worker import catalog
from worker.extractor import Checkpoint


class Odd(Server):
    """A hub that states sizes but no hashes, and a store that answers as it likes."""

    mode = ""  # "": as it should | bare: no length | long: more than there is | a status | an address to go to

    def answer_hub(self, request: tp.Any) -> None:
        file = request.path[1:].split("/", 4)[4]
        headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(self.files[file]))}
        place = f"http://localhost:{self.store.server_port}/{file}"
        self._send(request, 302, b"", {**headers, "Location": place})

    def answer_store(self, request: tp.Any) -> None:
        content = self.files[request.path[1:]]
        if ":" in self.mode:
            self._send(request, 302, b"", {"Location": self.mode})
        elif self.mode.isdigit():
            self._send(request, int(self.mode), b"")
        elif self.mode in ("bare", "long"):
            start = int(request.headers.get("Range", "bytes=0-").partition("=")[2].rstrip("-"))
            request.send_response(206 if start else 200)
            if start:
                request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            request.end_headers()
            half = start + (len(content) - start) // 2 if self.cut else len(content)
            self.cut = max(0, self.cut - 1)
            with contextlib.suppress(OSError):  # the client has heard enough
                request.wfile.write(content[start:half] + (b"more" * 1000 if self.mode == "long" else b""))
        else:
            super().answer_store(request)


@pytest.fixture
def server() -> tp.Iterator[Odd]:
    made = Odd()
    yield made
    made.close()


@pytest.fixture
def weights(server: Odd, tmp_path: tp.Any) -> Weights:
    """Return a cache whose hub is the server."""
    return Weights(tmp_path, hub=Hub({"HF_ENDPOINT": server.endpoint}))


def declare(file: str, **changes: tp.Any) -> Checkpoint:
    """Return a checkpoint of whose content nothing is known beforehand, of a repository that no model has."""
    return Checkpoint("hub", "our/weights", COMMIT, file, "", "CC-BY-NC-4.0", commercial=False)._replace(**changes)


def address_of(server: Odd, **changes: tp.Any) -> Checkpoint:
    url = f"http://localhost:{server.store.server_port}/pytorch_model.bin"
    return Checkpoint("url", "openl3", "v1", "w.h5", "", "MIT", url=url)._replace(**changes)


def put(weights: Weights, checkpoint: Checkpoint, content: bytes) -> None:
    """Do what a person does who has got a file elsewhere."""
    path = weights.path(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def names_below(folder: tp.Any) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_an_answer_that_ends_early_is_taken_up_although_nobody_states_a_hash(server, weights):
    server.mode, server.cut = "bare", 2
    (path,) = weights.pull([declare("pytorch_model.bin")])
    assert path.read_bytes() == MODEL and server.count("GET") == 3


def test_an_answer_that_always_ends_early_is_no_checkpoint(server, weights):
    server.mode, server.cut = "bare", 99
    with pytest.raises(CheckpointUnavailable, match="the connection ended early, 4 times"):
        weights.pull([declare("pytorch_model.bin")])
    assert not weights.path(declare("pytorch_model.bin")).exists() and weights.lock.entries() == []


def test_a_file_of_another_size_is_refused(server, weights, tmp_path):
    with pytest.raises(CheckpointUnavailable, match=r"w.h5 has 2259000 bytes, expected 2259001: refused"):
        weights.pull([address_of(server, size=len(MODEL) + 1)])
    assert names_below(tmp_path) == {".lock"}


@pytest.mark.parametrize("mode", ["", "long"])
def test_no_server_fills_the_disk(server, weights, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(transfer, "_LARGEST", len(MODEL) - 1)
    server.mode = mode
    with pytest.raises(CheckpointUnavailable, match=r"w.h5 is larger than 2258999 bytes: refused"):
        weights.pull([address_of(server)])
    assert names_below(tmp_path) == {".lock"}


def test_more_than_the_hub_states_is_refused(server, weights, tmp_path):
    server.mode = "long"
    with pytest.raises(CheckpointUnavailable, match=r"pytorch_model.bin is larger than 2259000 bytes: refused"):
        weights.pull([declare("pytorch_model.bin")])
    assert names_below(tmp_path) == {".lock"}


@pytest.mark.parametrize("mode", ["404", "file:///etc/passwd", "ftp://localhost/x"])
def test_what_is_no_file_of_a_server_is_refused(server, weights, tmp_path, mode):
    server.mode = mode
    for wanted in (declare("pytorch_model.bin"), address_of(server)):
        with pytest.raises(CheckpointUnavailable, match=r"HTTP 404|InvalidSchema") as raised:
            weights.pull([wanted])
        assert str(weights.path(wanted)) in str(raised.value) and len(str(raised.value).splitlines()) == 1
    assert names_below(tmp_path) == {".lock"}


def test_a_hub_in_trouble_is_asked_again(tmp_path):
    server = Server()
    server.status = 503
    weights = Weights(tmp_path, hub=Hub({"HF_ENDPOINT": server.endpoint}))
    with pytest.raises(CheckpointUnavailable, match=r"the hub answered HTTP 503 for config.json .*: try again later"):
        weights.pull([declare("config.json")])
    assert server.count("HEAD", "hub") == 3
    server.close()


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://me:secret@127.0.0.1:9", "127.0.0.1:9 cannot be reached"),
        ("huggingface.co", "HF_ENDPOINT must begin with https:// or http://"),
        ("file:///etc", "HF_ENDPOINT must begin"),
    ],
)
def test_an_endpoint_is_said_without_its_password(tmp_path, endpoint, words):
    with pytest.raises(CheckpointUnavailable) as raised:
        Weights(tmp_path, hub=Hub({"HF_ENDPOINT": endpoint})).pull([declare("config.json")])
    assert words in str(raised.value) and "secret" not in str(raised.value)


def test_the_token_goes_before_netrc_and_never_to_another_host(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    hub = Hub({"HF_ENDPOINT": server.endpoint, "HF_TOKEN": " hf_secret\n"})
    Weights(tmp_path, hub=hub).pull([declare("pytorch_model.bin"), address_of(server)])
    told = {(name, headers.get("Authorization")) for name, _, _, headers in server.requests}
    assert told == {("hub", "Bearer hf_secret"), ("store", None)}


@pytest.mark.parametrize("still_there", [True, False])
def test_a_file_put_by_hand_does_not_keep_the_hubs_own_out(weights, still_there):
    wanted = declare("config.json")
    put(weights, wanted, b"cut")
    weights.files([wanted], "mert")
    if still_there:
        put(weights, wanted, b"cut again")
    else:
        weights.path(wanted).unlink()
    assert weights.pull([wanted])[0].read_bytes() == CONFIG
    (entry,) = weights.lock.entries()
    assert (entry.by_hand, entry.commit, entry.sha256) == (False, COMMIT, sha256(CONFIG))


def test_what_another_process_wrote_down_meanwhile_is_kept(weights, monkeypatch):
    wanted, real = declare("config.json"), files.locked
    put(weights, wanted, CONFIG)

    @contextlib.contextmanager
    def late(folder: tp.Any, waiting: tp.Any) -> tp.Iterator[None]:
        fetched = Locked(*wanted[:4], sha256(CONFIG), len(CONFIG), wanted.licence, COMMIT)
        WeightsLock(weights.lock.path).add([fetched])
        with real(folder, waiting):
            yield

    monkeypatch.setattr(files, "locked", late)
    weights.files([wanted], "mert")
    (entry,) = weights.lock.entries()
    assert entry.commit == COMMIT and not entry.by_hand


def test_a_pinned_commit_is_asked_for_whatever_the_hub_says_it_is(server, weights):
    pinned = "c" * 40
    weights.pull([declare(file, revision=pinned) for file in FILES])
    asked = {path.split("/")[4] for name, _, path, _ in server.requests if name == "hub"}
    assert asked == {pinned} and {entry.commit for entry in weights.lock.entries()} == {COMMIT}


@pytest.fixture
def model(server: Odd, tmp_path: tp.Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Declare all files of the hub for a model, with a variant of one file, and return the model's name."""
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)

    class Model:
        def __init__(self, params: dict[str, str]) -> None:
            self.files = ["config.json"] if params else list(FILES)

        def asked(self, outputs: frozenset[str]) -> "Model":
            return self

        def checkpoints(self) -> tuple[Checkpoint, ...]:
            free = {"config.json": "MIT"}
            return tuple(declare(file, licence=free.get(file, "CC-BY-NC-4.0")) for file in self.files)

    real = catalog.build
    fake = lambda name, params, *rest: Model(params) if name == "crepe" else real(name, params, *rest)  # noqa: E731
    monkeypatch.setattr(catalog, "build", fake)
    return "crepe"


def test_the_list_knows_sizes_from_the_lock_and_all_licences(model):
    weights = Weights()
    for path in weights.pull(checkpoints.of_model(model)):
        path.unlink()
    text = checkpoints.listing([model])
    assert "0 of 3" in text and "2.3 MB" in text and "MIT, CC-BY-NC-4.0" in text


def test_list_and_verify_take_another_checkpoint_too(model, capsys):
    assert __main__.main(["weights", "pull", model, "--checkpoint", "small"]) == errors.OK
    assert __main__.main(["weights", "list", model, "--checkpoint", "small"]) == errors.OK
    said = capsys.readouterr().out
    assert "yes" in said and "28 B" in said
    assert __main__.main(["weights", "verify", model, "--checkpoint", "small"]) == errors.OK
    assert __main__.main(["weights", "verify", model]) == errors.UNAVAILABLE
    for verb in ("list", "verify"):
        assert __main__.main(["weights", verb, "--checkpoint", "small"]) == errors.USAGE
        assert __main__.main(["weights", verb, "--licence-policy", "commercial"]) == errors.USAGE


def test_the_list_names_a_folder_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CONSORT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine").mkdir()
    own = Checkpoint("folder", str(tmp_path / "mine"), "", "config.json", "", "unknown")
    monkeypatch.setattr(checkpoints, "of_model", lambda name, checkpoint: (own,))
    text = checkpoints.listing(["mert"], str(tmp_path / "mine"))
    assert "your own" in text and text.endswith(str(tmp_path / "mine"))


def test_verify_without_names_tells_what_is_gone_of_what_was_fetched(model):
    weights, wanted = Weights(), checkpoints.of_model(model)
    weights.pull(wanted[:2])
    assert checkpoints.verify([])[1] == errors.OK  # the third was never here
    weights.path(wanted[1]).unlink()
    text, code = checkpoints.verify([])
    assert code == errors.UNAVAILABLE and text.count("is missing") == 1 and "pytorch_model.bin" in text
    weights.path(wanted[0]).unlink()
    assert checkpoints.verify([])[1] == errors.OK  # somebody has removed all of it


def test_an_address_is_held_to_its_blob_before_its_size(server, weights):
    (path,) = weights.pull([address_of(server, git_blob=git_blob(MODEL), size=len(MODEL))])
    assert path.read_bytes() == MODEL
