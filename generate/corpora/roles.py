"""Which texts of an item cannot stay because of what they are to each other: questions and answers."""

from collections.abc import Sequence


def find_unpaired(roles: Sequence[str], usable: Sequence[bool]) -> dict[int, str]:
    """Return why texts cannot stay, by their place; texts that are not usable are not listed again.

    The answers of a question follow it. An answer needs its question, and a question needs an answer.

    Args:
        roles: what each text is to the item.
        usable: whether each text can be used by itself.

    Example:
        >>> find_unpaired(["question", "answer", "question", "answer"], [True, True, False, True])
        {3: 'its question is left out'}
        >>> find_unpaired(["answer", "caption", "question"], [True, True, True])
        {0: 'no question stands before it', 2: 'it has no answer'}
    """
    reasons: dict[int, str] = {}
    question: int | None = None
    answered: set[int] = set()
    for place, (role, is_usable) in enumerate(zip(roles, usable, strict=True)):
        if role == "question":
            question = place
        elif role == "answer" and is_usable:
            if question is None:
                reasons[place] = "no question stands before it"
            elif usable[question]:
                answered.add(question)
            else:
                reasons[place] = "its question is left out"
    for place, (role, is_usable) in enumerate(zip(roles, usable, strict=True)):
        if role == "question" and is_usable and place not in answered:
            reasons[place] = "it has no answer"
    return reasons
