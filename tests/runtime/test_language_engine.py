"""Continuing text: the same bytes for the same seed, drawn as asked, and refusals that say what to do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from language_models import language_network

import maqd
from maqd.cli import main
from maqd.errors import ConfigError, EngineError
from maqd.language import file
from maqd.language.sampling import Sampling, draw, probabilities
from maqd.lowering.language import lower_language
from maqd.runtime import LanguageEngine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file.save(lower_language(language_network()), tmp_path / "m.maqd")
    return tmp_path / "m.maqd"


def loaded(path: Path, **options: str | None) -> LanguageEngine:
    engine = maqd.load(path, **options)  # pyright: ignore[reportArgumentType]
    assert isinstance(engine, LanguageEngine)
    return engine


def test_bytes_are_those_that_pytorch_finds_best(path: Path):
    network, text = language_network(), bytearray(b"abc")
    for _ in range(9):
        with torch.no_grad():
            scores = network(torch.frombuffer(text, dtype=torch.uint8)[None])
        text.append(int(scores[0, :, -1].argmax()))
    for name in ("numpy", None):
        engine = loaded(path, engine=name)
        found = bytes(engine.generate_bytes("abc", count=9, sampling=Sampling(temperature=0)))
        assert found == bytes(text[3:])
        assert np.array_equal(engine.scores(bytes(text[:12])), scores_of(network, text[:12]))


def scores_of(network: torch.nn.Module, text: bytearray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.frombuffer(text, dtype=torch.uint8)[None])[0].T.numpy()


def test_a_seed_decides_and_text_goes_on_beyond_the_context(path: Path):
    engine = loaded(path)
    one, same, other = ("".join(engine.generate("abc", count=40, sampling=Sampling(seed=seed))) for seed in (1, 1, 2))
    assert one == same != other
    assert len(list(engine.generate_bytes("", count=40))) == 40
    assert list(engine.generate("abc", count=0)) == []


def test_several_texts_go_on_as_each_does_alone(path: Path):
    texts, sampling = ["abc", "", "hello worl"], Sampling(seed=3)
    for name in ("numpy", None):
        engine = loaded(path, engine=name)
        found = engine.generate_all(texts, count=14, sampling=sampling)
        assert found == ["".join(engine.generate(text, count=14, sampling=sampling)) for text in texts]
    with pytest.raises(ConfigError, match="needs texts and a count"):
        engine.generate_all([])


def test_sampling_keeps_to_the_best_and_the_likely():
    scores = np.array([1.0, 3.0, 2.0, 3.0, -1.0], np.float32)
    generator = Sampling().generator()
    assert draw(scores, Sampling(temperature=0), generator) == 1
    two = probabilities(scores, Sampling(top_k=1, temperature=1))
    assert two.tolist() == [0, 0.5, 0, 0.5, 0]
    some = probabilities(scores, Sampling(top_p=0.7, temperature=1))
    assert (some > 0).tolist() == [False, True, False, True, False]
    assert (probabilities(scores, Sampling(top_p=0.9, temperature=1)) > 0).tolist() == [False, True, True, True, False]
    plain = probabilities(scores, Sampling(temperature=2))
    assert np.allclose(plain, np.exp(scores / 2) / np.exp(scores / 2).sum())
    counts = np.bincount([draw(scores, Sampling(temperature=2), generator) for _ in range(4000)], minlength=5)
    assert np.abs(counts / 4000 - plain).max() < 0.03


def test_what_cannot_be_continued_is_refused(path: Path):
    engine = loaded(path)
    with pytest.raises(ConfigError, match="the text has 13 bytes, and the model a context of 12; pass its end only"):
        engine.generate("x" * 13)
    with pytest.raises(ConfigError, match="a character at 1 that UTF-8 cannot hold; remove it"):
        engine.generate("a\ud800")
    with pytest.raises(ConfigError, match="must be 0 or positive, got -1"):
        engine.generate("a", count=-1)
    with pytest.raises(EngineError, match="got 'onnxruntime'"):
        maqd.load(path, engine="onnxruntime")


def test_commands_continue_and_describe(path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["generate", str(path), "abc", "--tokens", "5", "--seed", "3"]) == 0
    assert capsys.readouterr().out.startswith("abc")
    assert main(["generate", str(path), "x" * 13]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "pass its end only" in err
    assert main(["info", str(path)]) == 0
    assert "2 blocks, context 12, 256 tokens, 255 activation states" in capsys.readouterr().out
    assert main(["run", str(path), "x.png"]) == 1
    assert "use maqd generate" in capsys.readouterr().err


def test_control_c_leaves_what_was_generated(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def pieces(self: LanguageEngine, text: str, **_: object):
        yield "so far"
        raise KeyboardInterrupt

    monkeypatch.setattr(LanguageEngine, "generate", pieces)
    assert main(["generate", str(path), "abc"]) == 130
    assert capsys.readouterr().out == "abcso far\n"
