"""Prompts to picture, written for this: the papers name their kinds and do not print them.

All but the first are longer than 64 tokens in any tokenizer of words and pieces, so that sinks
may be counted on them.
"""

from pathlib import Path

from experiments.settings import BadOption

LAUGH = (
    "I laughed with friends until my stomach hurt. I wiped away tears of sadness and said nothing. "
    "I slammed my fist in anger on the table."
)

ZERO_SHOT = """\
Question: A ferry carries 18 cars on each crossing and makes 5 crossings before noon. After noon \
it makes 3 crossings more, but on each of these two places stay empty. A storm then closes the \
harbour for the rest of the day. How many cars does the ferry carry on that day?
Answer: Let's think step by step."""

WORKED = """\
Question: Nora has 4 shelves with 12 books on each. She gives 9 books away. How many are left?
Answer: There are 4 shelves with 12 books each, so there are 4 * 12 = 48 books. Nora gives 9 away, \
so 48 - 9 = 39 books are left. The answer is 39.
Question: A baker fills 7 trays with 6 rolls each and sells 25 rolls. How many are left?
Answer: There are 7 trays with 6 rolls each, so there are 7 * 6 = 42 rolls. The baker sells 25,"""

NLI = """\
Premise: The old lighthouse on the northern cape was repaired last summer, and since then a group \
of volunteers has opened it to visitors every Sunday afternoon, unless the wind is too strong.
Hypothesis: On some Sundays nobody can visit the lighthouse.
Does the premise entail the hypothesis? Give one of: entailment, neutral, contradiction.
Label:"""

FOUR_SHOT = """\
Question: Which planet is closest to the sun?
A. Venus
B. Mercury
C. Mars
D. Saturn
Answer: B

Question: Which gas do plants take from the air?
A. carbon dioxide
B. helium
C. neon
D. hydrogen
Answer: A

Question: What is frozen water called?
A. steam
B. sand
C. smoke
D. ice
Answer: D

Question: How many sides has a triangle?
A. two
B. five
C. three
D. eight
Answer: C

Question: Which animal lays eggs?
A. horse
B. whale
C. hen
D. wolf
Answer:"""

PROMPTS = {
    "laugh": LAUGH,
    "zero-shot": ZERO_SHOT,
    "worked": WORKED,
    "nli": NLI,
    "four-shot": FOUR_SHOT,
}
"""By name: three moods; chain of thought without and with an example; inference; four examples
of multiple choice."""
FIRST = "laugh"


def chosen(prompt: str, file: Path | None) -> str:
    """The text to picture: of the file, of one of ours by its name, or as it was typed.

    Raises:
        BadOption: both are given, the file cannot be read, or there is no text in it.
    """
    if file is None:
        text, option = PROMPTS.get(prompt, prompt), "--prompt"
    elif prompt != FIRST:
        raise BadOption("--prompt and --prompt-file are both given: give one of them")
    else:
        text, option = _read(file), f"--prompt-file {file}"
    if not text.strip():
        raise BadOption(f"{option} is empty: give a sentence")
    return text


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadOption(
            f"--prompt-file {file} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise BadOption(f"--prompt-file {file}: {error.strerror}; give a text file") from error
