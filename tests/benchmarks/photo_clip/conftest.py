import pytest

from tai_benchmarks.photo_clip.wordnet import Nouns

# Ten synsets as the database writes them: dog and cat are animals, hot dog is food, terrier a dog, man a person.
_SYNSETS = (
    ("00000001", "03", ["entity"], []),
    ("00000002", "03", ["organism"], ["00000001"]),
    ("00000003", "03", ["animal"], ["00000002"]),
    ("00000004", "05", ["domestic_animal"], ["00000003"]),
    ("00000005", "05", ["dog", "domestic_dog"], ["00000004"]),
    ("00000006", "05", ["cat"], ["00000004"]),
    ("00000007", "05", ["terrier"], ["00000005"]),
    ("00000008", "13", ["hot_dog", "frank"], ["00000001"]),
    ("00000009", "18", ["man", "adult_male"], ["00000002"]),
    ("00000010", "06", ["ball"], ["00000001"]),
    ("00000011", "14", ["ball", "dance"], ["00000001"]),
    ("00000012", "06", ["glasses", "spectacles"], ["00000001"]),
    ("00000013", "06", ["glass"], ["00000001"]),
)


@pytest.fixture
def wordnet_folder(tmp_path):
    """A folder with the three files of a tiny WordNet."""
    folder = tmp_path / "wordnet"
    folder.mkdir()
    licence = "  1 This is a licence.\n"
    data, senses = licence, {}
    for offset, topic, words, parents in _SYNSETS:
        lemmas = " ".join(f"{word} 0" for word in words)
        pointers = " ".join(f"@ {parent} n 0000" for parent in parents)
        data += f"{offset} {topic} n {len(words):02x} {lemmas} {len(parents):03d} {pointers} | what it is\n"
        for word in words:
            senses.setdefault(word, []).append(offset)
    index = licence + "".join(
        f"{word} n {len(offsets)} 1 @ {len(offsets)} 0 {' '.join(offsets)}  \n" for word, offsets in senses.items()
    )
    (folder / "data.noun").write_text(data)
    (folder / "index.noun").write_text(index)
    (folder / "noun.exc").write_text("men man\noxen ox\n")
    return folder


@pytest.fixture
def nouns(wordnet_folder):
    return Nouns.read(wordnet_folder)
