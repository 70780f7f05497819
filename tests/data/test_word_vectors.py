"""Word vectors: nearest words, analogies, files that gensim reads, and files that are damaged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.data.word_vectors import WordVectors, load_vectors, save_binary, save_text
from chainrule.errors import DataError

FORMATS = {"text": save_text, "binary": save_binary}
SPACES = " \n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
LETTERS = st.characters(codec="utf-8", exclude_characters=SPACES)
WORDS = st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=1, max_size=20, unique=True)


def vectors_of(words, dimensions=3, seed=0):
    generator = np.random.default_rng(seed)
    return WordVectors(tuple(words), generator.standard_normal((len(words), dimensions), np.float32))


@pytest.fixture
def plane():
    """Words as points of a plane."""
    points = {"right": (1, 0), "also": (3, 0.3), "up": (0, 2), "left": (-1, 0), "nothing": (0, 0)}
    return WordVectors(tuple(points), np.array(list(points.values()), np.float32))


def test_the_nearest_words_have_the_largest_cosines(plane):
    assert [("also", pytest.approx(0.995, abs=1e-3)), ("up", 0), ("nothing", 0)] == plane.similar("right", 3)
    assert "left" == plane.similar("right")[-1][0]


def test_an_analogy_leaves_its_three_words_out():
    vectors = WordVectors(
        ("man", "woman", "king", "queen", "stone"),
        np.array([(1, 0, 1), (0, 1, 1), (1, 0, 3), (0, 1, 3), (1, 1, -9)], np.float32),
    )

    assert "queen" == vectors.analogy("man", "woman", "king", 1)[0][0]
    assert ["queen", "stone"] == [word for word, _ in vectors.analogy("man", "woman", "king")]


def test_an_unknown_word_is_refused_with_the_nearest_spelling(plane):
    with pytest.raises(DataError, match=r"'rihgt' is none of the 5 words; did you mean 'right'\?"):
        plane.similar("rihgt")
    with pytest.raises(DataError, match=r"'zzz' is none of the 5 words; the most frequent are right, also, up"):
        plane.similar("zzz")


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=40)
@given(words=WORDS, dimensions=st.integers(1, 5), seed=st.integers(0, 99))
def test_what_is_saved_is_loaded_again_bit_for_bit(tmp_path_factory, kind, words, dimensions, seed):
    path = tmp_path_factory.mktemp("vectors") / "vectors"
    vectors = vectors_of(words, dimensions, seed)

    FORMATS[kind](path, vectors)
    loaded = load_vectors(path)

    assert vectors.words == loaded.words
    assert np.array_equal(vectors.vectors, loaded.vectors)


@pytest.mark.parametrize("kind", FORMATS)
def test_gensim_loads_what_is_saved(tmp_path, kind):
    models = pytest.importorskip("gensim.models", reason="needs the [words] extra (gensim)")
    vectors = vectors_of(["water", "naïve", "水"], 100)
    FORMATS[kind](tmp_path / "vectors", vectors)

    loaded = models.KeyedVectors.load_word2vec_format(tmp_path / "vectors", binary=kind == "binary")

    assert list(vectors.words) == loaded.index_to_key
    assert np.array_equal(vectors.vectors, loaded.vectors)


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_what_gensim_saves_is_loaded(tmp_path, kind):
    models = pytest.importorskip("gensim.models", reason="needs the [words] extra (gensim)")
    vectors = vectors_of(["water", "naïve"], 20)
    theirs = models.KeyedVectors(20)
    theirs.add_vectors(list(vectors.words), vectors.vectors)
    theirs.save_word2vec_format(str(tmp_path / "vectors"), binary=kind == "binary")

    assert np.allclose(vectors.vectors, load_vectors(tmp_path / "vectors").vectors, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file of word vectors: it is empty"),
        (b"%PDF-1.7\n", "is no file of word vectors: it begins with b'%PDF-1.7"),
        (b"2 3\n", "is cut: 2 vectors of 3 numbers do not fit in 0 bytes"),
        (b"0 3\n", "announces 0 vectors of 3 numbers: no such file can be meant"),
        (b"999999999999 999\n", "announces 999,999,999,999 vectors of 999 numbers: no such file can be meant"),
        (b"2 2\na 1 2\nb 1 x\n", "line 3: a word and 2 numbers are expected, got b'b 1 x"),
        (b"2 2\na 1 2\nb 1 2 3\n", "line 3: a word and 2 numbers are expected"),
        (b"2 2\na 1.5 2.5\nb 1.5\n", "line 3: a word and 2 numbers are expected, got b'b 1.5"),
        (b"2 2\na 1.5 2.5\n\xff 1.5 2\n", r"is damaged: it holds a word that is not utf-8: b'\\xff'"),
        (b"1 2\na 1 2\nb 3 4\n", "goes on after its 1 vectors: it is damaged, or its first line is wrong"),
        (b"2 2\na 1 2\nb 1 nan\n", r"is damaged: vector 2 \('b'\) holds inf or nan"),
        (b"1 2\na 1 1e300\n", r"is damaged: vector 1 \('a'\) holds inf or nan"),
        (b"2 2\na 1 2\na 1 2\n", "is damaged: 'a' is there twice"),
        (b"2 2\na \x00\x00\x80?\x00\x00\x80?\nbcdef", r"is cut or damaged at vector 2 of 2"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(tmp_path, content, message):
    (tmp_path / "vectors").write_bytes(content)

    with pytest.raises(DataError, match=message):
        load_vectors(tmp_path / "vectors")


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_file_that_was_cut_anywhere_is_refused_or_lacks_only_its_last_line_end(tmp_path_factory, kind, data):
    path = tmp_path_factory.mktemp("vectors") / "vectors"
    FORMATS[kind](path, vectors_of(["water", "fire", "air"], 4))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])

    loaded = loaded_or_refused(path)

    if loaded is not None:  # a text file whose last number lost digits is a whole file of another number
        assert kind == "text"
        assert ("water", "fire", "air") == loaded.words


def loaded_or_refused(path):
    """The vectors, or None if the file is refused by its name."""
    try:
        return load_vectors(path)
    except DataError as error:
        if str(path) not in str(error):
            raise
        return None


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_loaded_or_refused_with_the_name_of_the_file(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("vectors") / "vectors"
    path.write_bytes(b"2 2\n" + content)

    loaded = loaded_or_refused(path)

    assert loaded is None or np.isfinite(loaded.vectors).all()


def test_a_word_that_the_format_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(
        DataError, match="'new york' cannot be written: a word of these formats is not empty and holds no space"
    ):
        save_text(tmp_path / "vectors", vectors_of(["new york"]))
