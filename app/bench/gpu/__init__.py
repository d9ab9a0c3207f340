"""`carillon bench gpu`: what one card carries, measured part by part, and what an hour of audio costs on it.

    plan            what is measured, in the order of its worth
    random_model    a checkpoint, a codec and adapters of Orpheus's shape, where no weights are at hand
    stage           a process that measures, and the lines it writes
    engine, decoder, speech, training    the programs of the four tables; `worker` is the worker that `speech` loads
    results         the file that every result is written to at once, and that a second call goes on with
    report, plots   what is shown of it

Each program is a process of its own, so that what one breaks or keeps of a card's memory is no other's trouble.
"""
