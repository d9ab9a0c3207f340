"""Text normalisation of English, as it is read aloud.

Each module takes what it knows in a text and leaves words in its place. The rules are our own. Of what was tried on
`tests/cases/text.jsonl` they alone read it in well under a millisecond; `carillon bench text` prints both beside the
grammars that other languages' books are read with. Passes follow one another, from the most particular (a web address,
a telephone number) to the plain number: see `reading`.
"""
