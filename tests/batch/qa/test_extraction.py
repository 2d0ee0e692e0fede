"""Which letter is read from an answer, and that none is ever guessed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from qwen_fp8_ops.client.batch.qa.choices import IN_THE_IMAGE, Choices
from qwen_fp8_ops.client.batch.qa.extraction import extract

FOUR = Choices(("red", "blue", "green", "blue whale"))
NUMBERS = Choices(("1", "2", "3/4", "0.5"))
NAMES = Choices(("a man", "a woman", "none of the above", "\\frac{1}{2}"))

PLAIN = [
    "B",
    "b",
    "(B)",
    "B.",
    "B)",
    "[B]",
    "**B**",
    "`B`",
    "Option B",
    "option: B",
    "Answer B",
    "B. blue",
    "B) Blue.",
    "B: blue",
    "(B) blue",
    "blue (B)",
    "blue",
    "Blue.",
    "It is blue.",
]
BOXED = [
    "\\boxed{B}",
    "$\\boxed{B}$",
    "\\boxed{\\text{B}}",
    "\\boxed{\\textbf{(B)}}",
    "\\boxed{ b }",
    "\\boxed{\\text{(B) blue}}",
    "\\boxed{blue}",
    "\\fbox{B}",
    "\\boxed{B. Blue}",
]
STATED = [
    "The answer is B.",
    "the answer is b",
    "The correct answer is: (B)",
    "The correct option is **B. blue**.",
    "So the answer is letter B.",
    "Answer: B",
    "**Answer:** B",
    "Answer = B",
    "### Final Answer\n\nB",
    "Answer:\n\nB",
    "Final Answer: \\boxed{B}",
    "The final answer is $\\boxed{B}$.",
    "The answer is B, because the sky is blue.",
    "The answer is B. blue",
    "The answer is blue.",
    "The answer is the blue one? No. The answer is blue",
    "Answer: blue (B)",
    "The answer is B, not C.",
    "The answer is B rather than C or D.",
    "I think the answer is B.",
    "The most likely answer is B",
    "The answer is most likely B.",
    "A and C are wrong, so the answer is B",
    "It is not red, so the answer is B.",
    "If we look closely we see the sky, so the answer is B.",
    "B is correct.",
    "Option B is the correct answer.",
    "A is wrong. C is wrong. B is correct.",
    "I would go with B.",
    "I'd choose option B",
    "Options:\nA. red\nB. blue\n\nAnswer: B",
    "The answer is B. A or C would be wrong.",
    "The answer is B. Options A and D show other things.",
    "The answer is B. People wait at the sea, and hold on to the boat.",
    "It is clear that B is correct.",
    "A is true. C is true.\n\nThe answer is B.",
    "The answer is B (blue).",
    "Therefore, the correct answer is:\n\n**B. blue**",
    "Looking at it, $$\n\\boxed{B}\n$$",
    "### Options\n- A. red: no\n- B. blue: yes\n\n✅ **Answer: B**",
    "The answer is clearly B.",
    "The sky is blue.\nHence, B.",
    "It is the sky, so B",
    "Final answer - B",
    "Ans: B",
    "It's B.",
    "The sky is blue, which corresponds to option B.",
    "There is a blue thing. That is option B.",
    "选B。",
    "本题选B",
    "正确选项是B",
]
FIELDS = [
    '{"answer": "B"}',
    '```json\n{"reason": "it is A?", "answer": "blue"}\n```',
    "{'answer': 'B'}",
    '{"answer": ["B"]}',
    '{"final_answer": "(B)", "cut',
    '{"answer": "\\\\boxed{B}"}',
]
FIELDS += ["<answer>B</answer>", "<answer> B. blue </answer>", "<think>A</think><answer>B</answer>"]
ELSEWHERE = [
    "Ｂ",
    "（Ｂ）",
    "Ⓑ",
    "答案是B",
    "答案：Ｂ。",
    "正确答案为（B）",
    "故选B",
    "因此选择 B。",
    "【答案】B",
    "正解はBです",
    "答え：B",
    "정답은 B입니다.",
    "정답: B",
]
ELSEWHERE += [
    "La respuesta correcta es B.",
    "La réponse est B",
    "Die richtige Antwort ist B.",
    "Antwort: B",
    "A resposta correta é B.",
    "La risposta è B",
    "Ответ: B",
    "الإجابة: B",
]
LINES = ["B\n\nThe sky is blue.", "It looks like the sky.\n\nB", "B. blue\n\nBecause of the sky.", "**B**\n\n- red would be warmer"]
AFTER_THINKING = [
    "<think>The answer is A</think>B",
    "A? The answer is A.</think>\n\nAnswer: B",
    "<think>x</think><think>y</think>\\boxed{B}",
    "<THINKING>A</THINKING> B",
]
CORRECTED = [
    "Answer: A. Wait, no. Answer: B",
    "\\boxed{A}\n\nActually it is \\boxed{B}.",
    "The answer is C\n\nThe answer is B",
    "\\boxed{A} no, \\boxed{B}",
    "\\boxed{42}. Answer: B",
    "Answer: B, so \\boxed{x=3}",
]


@pytest.mark.parametrize("output", [*PLAIN, *BOXED, *STATED, *FIELDS, *ELSEWHERE, *LINES, *AFTER_THINKING, *CORRECTED])
def test_what_is_said_plainly_is_read(output: str) -> None:
    assert extract(output, FOUR).letter == "B"


SEVERAL = [
    "A or B",
    "A, B",
    "A and B",
    "AB",
    "\\boxed{A, B}",
    "\\boxed{AB}",
    "\\boxed{A} or \\boxed{B}",
    "\\boxed{A}\\boxed{B}",
    "The answer is A or B.",
    "The answer is either A or B.",
]
SEVERAL += [
    "The answer is A and C",
    "Answer: A/B",
    "Answer: red or blue",
    '{"answer": ["A", "B"]}',
    "A\nB",
    "A. red\nB. blue\nC. green",
    "A. First. B. Second.",
    "A or B is correct.",
    "It could be B or C.",
]
SEVERAL += [
    "The answer is B, but it could also be C",
    "B. red",
    "The answer is B. red",
    "Answer: blue (C)",
    "\\boxed{B: red}",
    "You must choose A, B, C or D.",
    "The answer is B; or maybe C.",
]
SEVERAL += ["The answer is B (red).", "The answer is B red", "The answer is B. or C", "B. blue or C. green", "The answer is A. Actually B is correct."]
SEVERAL += ["That is option A. That is option B.", "It matches option A, and B is correct."]
SEVERAL += ["A is correct. B is correct.", "A is true, and B is true", "\\boxed{A}, and also \\boxed{B}"]
NOT_DECLARED = [
    "The sky is blue.",
    "A dog is in the picture.",
    "A",
    "I see a man. A man.",
    "Based on the image,",
    "The image shows a red circle and a blue square.",
    "The blue one is next to the red one",
    "E=mc",
]
NOT_DECLARED[2] = "A man and I"
DENIED = [
    "The answer is not B",
    "The answer isn't B.",
    "I don't think the answer is B.",
    "The answer cannot be B.",
    "B is not correct.",
    "B is incorrect.",
    "B is wrong",
    "not \\boxed{B}",
    "The wrong answer is B.",
    "答案不是B",
    "Neither A nor B is correct.",
]
TENTATIVE = [
    "The answer might be B.",
    "Perhaps the answer is B.",
    "The answer could be B",
    "The answer is probably B.",
    "Maybe \\boxed{B}",
    "One might say the answer is B.",
    "答案可能是B",
]
TENTATIVE += ["One option is B.", "Another possible answer is B.", "The student's answer is B.", "The second best option is B.", "The answer is A or maybe B."]
ASKED = [
    "Is the answer B?",
    "The answer is B?",
    "Is B correct?",
    "If it is round, the answer is A; if square, the answer is B.",
    "Assuming it is night, the answer is B.",
    "B is correct if it is night.",
]
DENIED += ["That is not option B.", "It doesn't match; that isn't option B."]
ASKED += ["Is this option B?", "That is option B?", "It's B?"]
EXAMPLES = ["Example: \\boxed{B}", "Answer with the letter, e.g. \\boxed{B}", "For example, the answer is B.", "Answer with the option letter in \\boxed{}."]
OUTSIDE = ["E", "\\boxed{E}", "The answer is E.", "Answer: B\nAnswer: E", '{"answer": "Z"}', "(F)"]
UNDECIDED = [
    "The answer is none of the above.",
    "Answer: none",
    "The answer cannot be determined.",
    "Answer: unknown",
    "Answer: N/A",
    "\\boxed{\\text{None of these}}",
    "答案无法确定",
]
REFUSED = ["I'm sorry, I cannot see the image.", "I cannot determine this. A", "I do not know.\nB", "There is no image. B", "无法确定"]
TAKEN_BACK = ["Answer: B\nThe answer is not B.", "Answer: B. Hmm, wait", "\\boxed{B} Let me re-check this.", "Answer: B\nB is wrong."]
UNFINISHED = [
    "<think>The answer is B",
    "Answer: B <think> hmm",
    "<think>a</think>The answer is B<think>",
    "",
    " \n",
    "</think>",
    "<think></think>",
    "**",
    "\u200b",
]


@pytest.mark.parametrize("output", [*SEVERAL, *NOT_DECLARED, *DENIED, *TENTATIVE, *ASKED, *EXAMPLES, *OUTSIDE, *UNDECIDED, *REFUSED, *TAKEN_BACK, *UNFINISHED])
def test_what_is_not_said_plainly_is_none(output: str) -> None:
    assert extract(output, FOUR).letter is None


@pytest.mark.parametrize(
    ("output", "choices", "letter"),
    [
        ("The answer is a blue whale.", FOUR, "D"),
        ("Answer: blue sky", FOUR, None),
        ("It's a blue whale.", FOUR, "D"),
        ("The answer is a dog.", FOUR, None),
        ("The answer is A dog", FOUR, None),
        ("The answer is A because it is red.", FOUR, "A"),
        ("2", NUMBERS, "B"),
        ("\\boxed{3/4}", NUMBERS, "C"),
        ("The answer is 0.5.", NUMBERS, "D"),
        ("The answer is 0.5 or 2.", NUMBERS, None),
        ("The answer is 12.", NUMBERS, None),
        ("a woman", NAMES, "B"),
        ("The answer is woman", NAMES, "B"),
        ("man", NAMES, "A"),
        ("The answer is none of the above.", NAMES, "C"),
        ("\\boxed{\\dfrac{1}{2}}", NAMES, "D"),
        ("\\boxed{G}", IN_THE_IMAGE, "G"),
        ("The answer is G, the large one.", IN_THE_IMAGE, "G"),
        ("\\boxed{J}", IN_THE_IMAGE, None),
        ("blue", Choices(("blue", "Blue", "red")), None),
        ("B", Choices(("C", "A", "B")), "B"),
    ],
)
def test_the_texts_of_the_choices_count(output: str, choices: Choices, letter: str | None) -> None:
    assert extract(output, choices).letter == letter


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("", "empty"),
        ("<think>hm", "unfinished-thinking"),
        ("A or B", "several"),
        ("\\boxed{E}", "outside"),
        ("Answer: none", "undecided"),
        ("Answer: B. Wait", "retracted"),
        ("I'm sorry, I cannot help.", "refused"),
        ("A nice picture.", "no-decision"),
        ("\\boxed{B}", "boxed"),
        ("Answer: B", "stated"),
        ('{"answer": "B"}', "json"),
        ("<answer>B</answer>", "tag"),
        ("B", "whole"),
        ("B\n\nYes.", "line"),
        ("(B) It is far away.", "marked"),
    ],
)
def test_it_tells_where_it_was_found_or_why_not(output: str, why: str) -> None:
    assert extract(output, FOUR).why == why


PIECES = [
    *SEVERAL,
    *DENIED,
    *TENTATIVE,
    *ASKED,
    *STATED,
    *BOXED,
    *PLAIN,
    *FIELDS,
    *ELSEWHERE,
    "{",
    "}",
    "\\boxed{",
    "<answer>",
    '{"answer":',
    "\n",
    " ",
    ". ",
    "?",
    "not ",
    "or ",
    "if ",
    "A",
    "I",
]
soup = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
anything = st.one_of(st.text(max_size=200), soup, st.text(alphabet='ABCDE abcd\\boxed{}()[].,:;?!\n"answer is\u3000Ａ答案是', max_size=120))
some_choices = st.lists(
    st.one_of(st.text(min_size=1, max_size=12), st.sampled_from(["red", "blue", "A", "B", "none", "1", "2.5"])), min_size=2, max_size=26
).map(lambda texts: Choices(tuple(texts)))


@given(anything, some_choices)
@example("\ud800", FOUR)
@example("\\boxed{" * 300, FOUR)
@example("(" * 500 + ")" * 500, FOUR)
def test_any_text_is_read_without_an_error_and_gives_a_letter_of_the_question_or_none(output: str, choices: Choices) -> None:
    found = extract(output, choices)
    assert found.letter is None or (found.letter in choices.letters and len(found.letter) == 1)
    assert found.why


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=120))
def test_a_letter_that_occurs_nowhere_is_never_given(output: str) -> None:
    choices = Choices(("quartz", "zircon", "topaz"))
    letter = extract(output, choices).letter
    plain = unicodedata.normalize("NFKC", output)
    assert letter is None or letter in plain.upper() or choices.text(letter) in plain.lower()


@given(anything, st.sampled_from("ABCD"))
def test_the_last_declaration_wins_over_anything_before_it(before: str, letter: str) -> None:
    assume("think" not in before.lower())
    assert extract(f"{before}\n\nThe answer is {letter}.", FOUR).letter == letter


@given(
    anything,
    st.permutations("ABCD"),
    st.sampled_from(["The answer is {} or {}.", "Answer: {}, {}", "\\boxed{{{}, {}}}", "The answer is {} or maybe {}.", "Answer: {} or {}"]),
)
def test_two_letters_at_the_end_are_none(before: str, letters: list[str], form: str) -> None:
    assume("think" not in before.lower())
    assert extract(f"{before}\n\n{form.format(*letters[:2])}", FOUR).letter is None


@given(
    anything,
    st.sampled_from("ABCD"),
    st.sampled_from(["The answer is not {}.", "{} is wrong.", "{} is not correct.", "I don't think the answer is {}.", "The answer can't be {}."]),
)
def test_a_letter_denied_at_the_end_is_not_given(before: str, letter: str, form: str) -> None:
    assert extract(f"{before}\n\n{form.format(letter)}", FOUR).letter != letter


@given(anything, st.sampled_from("EFGHXZ"))
def test_a_letter_that_the_question_lacks_is_none(before: str, letter: str) -> None:
    assert extract(f"{before}\n\nThe final answer is {letter}.", FOUR).letter is None


@given(st.sampled_from([*PLAIN, *BOXED, *STATED, *FIELDS, *LINES]))
def test_full_width_letters_are_the_same_letters(output: str) -> None:
    wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isascii() and letter.isalpha() else letter for letter in output)
    assert extract(wide.replace("\\ｂｏｘｅｄ", "\\boxed"), FOUR).letter == "B"


@pytest.mark.parametrize("piece", ["answer: ", "\\boxed{", "\\boxed{B} ", "{", "A is correct ", '"answer": "', "<answer>", "(", "B. blue\n", "_", "word "])
def test_a_model_that_repeats_itself_without_end_does_not_hold_us(piece: str) -> None:
    """Forty thousand letters; what took the square of that would take hours."""
    extract(piece * (40_000 // len(piece)), FOUR)
