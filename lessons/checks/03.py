"""Checks of the exercises of lesson 03: "right", or the key of the hint that fits."""

from helpers.course import near

MASKED = -100  # the label of a token that is not learnt


def check_3_1(answer, ids, spans) -> str:
    """Labels of a talk: its answers and their end tokens are learnt, all else is masked.

    `ids`: 1 11 12 2 | 21 22 2 | 13 2 | 23 2, of which 2 is the end token; `spans`: the answers.
    """
    if not callable(answer):
        return "function"
    labels = answer(list(ids), list(spans))
    if labels is None:
        return "nothing"
    labels = list(labels)
    right = [MASKED] * 4 + [21, 22, 2] + [MASKED] * 2 + [23, 2]
    # A second talk, for a function that knows the first by heart.
    if labels == right and list(answer([5, 6, 7], [(1, 2)])) == [MASKED, 6, 7]:
        return "right"
    if len(labels) != len(ids):
        return "length"
    if set(labels) == {MASKED}:
        return "all_masked"
    if labels[:4] == [1, 11, 12, 2] and labels[4:6] == [MASKED, MASKED]:
        return "reversed"
    if labels == list(ids):
        return "all_learnt"
    if labels == [MASKED] * 4 + [21, 22] + [MASKED] * 3 + [23, MASKED]:
        return "end_tokens"
    if labels[4:] == [21, 22, 2] + [MASKED] * 4:
        return "first_alone"
    first_learnt = labels[4:7] == [21, 22, 2]
    if labels[:4] == [MASKED] * 4 and labels[9:] == [23, 2] and not first_learnt:
        return "last_alone"
    if labels[3] == 2 or labels[8] == 2:
        return "task_end"
    if labels == right:
        return "fixed"
    return "rest"


def check_3_2(answer) -> str:
    """A LoRA layer: the lesson's cell tries it, and `answer()` is what it found."""
    return answer()


def check_3_3(answer) -> str:
    """The updates of a short training, and what share of its rate a warm-up of 200 reaches."""
    updates, reached = answer
    if updates == 5 and near(reached, 5 / 200, 0.01):
        return "right"
    if updates in (10, 20, 40):
        return "one_of_two"
    if updates == 200:
        return "asked_for"
    if updates != 5:
        return "divide"
    if near(reached, 4 / 200, 0.01):
        return "last_update"
    if 1.9 <= reached <= 3.1:
        return "percent"
    return "compare"


def check_3_4(answer, kind) -> str:
    """`TrainingArguments`, called `kind`, for 40 rows, 8 an update, 10 epochs: 50 updates."""
    if not isinstance(answer, kind):
        return "arguments"
    rows = answer.per_device_train_batch_size
    if rows > 2:
        return "rows"
    if rows * answer.gradient_accumulation_steps != 8:
        return "eight"
    if answer.max_steps > 0 and answer.max_steps != 50:
        return "max_steps"
    if answer.num_train_epochs != 10 and answer.max_steps != 50:
        return "epochs"
    if not near(answer.learning_rate, 5e-4, 1e-6):
        return "rate"
    if answer.lr_scheduler_type != "cosine":
        return "schedule"
    warmup = answer.get_warmup_steps(50)
    if warmup == 5:
        return "right"
    if warmup == 0:
        return "no_warmup"
    if warmup in (1, 4, 40):
        return "one_epoch"
    return "count"


def check_3_5(answer, zero) -> str:
    """Which matrix has no gradient at first; `zero`: the names of those that had none."""
    said = str(answer).strip().lower()
    if said == {"A": "a", "B": "b", "AB": "both", "": "neither"}[zero]:
        return "right"
    if said == "b":
        return "only_b"
    if said == "both":
        return "both"
    if said == "neither":
        return "neither"
    if said == "a":
        return "only_a"
    return "words"
