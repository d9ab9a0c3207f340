"""What the demonstration clones: a speaker whom the stand-in has never heard, and how the recordings were made."""
