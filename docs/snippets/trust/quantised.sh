#: slow
#: fixtures examples
# --- evaluate ---
unfooled evaluate examples/quantised.py:make "fashion-mnist-sample[0:200]" --threat linf:0.1 --out runs/quantised
# --- hidden-others ---
unfooled evaluate fashion-mnist/plain "fashion-mnist-sample[0:20]" --threat linf:0.05 --protocol quick --out runs/a
unfooled evaluate fashion-mnist/hardened "fashion-mnist-sample[0:20]" --threat linf:0.05 --protocol quick --out runs/b
unfooled() { command unfooled "$@" || [ $? -eq 1 ]; } # what study.toml asserts does not hold
# --- after ---
unfooled runs                  # what there is, and what is unfinished
unfooled verify runs/quantised # every example again, from scratch, against the model
unfooled compare runs/a runs/b # paired differences, McNemar's test
unfooled report runs/quantised # draw the report again, without torch
unfooled evaluate examples/study.toml   # the same as a file
