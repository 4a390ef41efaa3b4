"""A page to explore a model with: the lesson of FGSM, every attack on one's own picture, a run's examples.

    state      what is computed: one picture, one question, one answer; the smallest eps that fools
    curves     accuracy against eps, of a sample, piece by piece
    desk       who computes what: a newer question ends an older one, and a closed page ends all of its own
    lesson     FGSM on one picture, in formula, pictures and sentences
    uploads    a file as a picture, or why not
    runs       a run's examples, filtered
    pictures   numbers as pictures
    page       the page of a model;  run_page: that of a run;  serve: how either is shown

Only `page`, `run_page` and `serve` need Gradio: `pip install "unfooled[explore]"`.
"""
