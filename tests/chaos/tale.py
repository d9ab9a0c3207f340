"""What the loose fleet speaks."""

SENTENCES = (
    "The owl sat on the old stone bridge at night.",
    "A farmer walked to the market with two apples.",
    "The bell in the tower rang twelve times for her.",
    "Nobody knew where the golden clock had gone.",
)
CHUNK_CHARS = 60
"""No two sentences fit into one chunk, and each fits into one: they are cut alike, however the text comes."""

TALE = " ".join(SENTENCES)
SHORT_TALE = " ".join(SENTENCES[:2])
VOICES = ("wren", "rook")
