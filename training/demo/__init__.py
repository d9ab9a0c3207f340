"""What the demonstration clones: a speaker that the stand-in was not trained on, and how the recordings were made."""
