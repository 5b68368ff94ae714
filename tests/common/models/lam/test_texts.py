from sclmkb.common.models.lam.texts import END, PAD, UNKNOWN, Words


def test_texts_come_back_in_words_up_to_their_end() -> None:
    words = Words.of(["What colour is this?", "it is red, not blue."])
    numbers = words.numbers(["It is red, not blue.", "red"], 9)
    assert words.write(numbers) == ["it is red, not blue.", "red"]
    assert numbers[1].tolist()[1:3] == [END, PAD]
    assert words.write(words.numbers(["it is red"], 3)) == ["it is"]


def test_unknown_words_are_read_as_one_and_never_written() -> None:
    words = Words.of(["red"])
    numbers, real = words.read(["a red thing", ""], 8)
    assert numbers[0].tolist() == [UNKNOWN, 3, UNKNOWN]
    assert real.tolist() == [[True] * 3, [False] * 3]
    assert words.write(words.numbers(["a red thing"], 8)) == ["red"]
