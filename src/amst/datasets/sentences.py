"""What the clips of the embedded dataset say, which its tokenizer knows by heart."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SENTENCES = (
    "please dial {} now",
    "the number is {}",
    "press {} to go on",
    "i heard {} i think",
    "room {} on the left",
    "try {} once more",
    "you want line {}",
    "it must be {} again",
)
"""What is said, with the number word in the braces."""
