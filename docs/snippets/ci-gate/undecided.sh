#: slow
# --- undecided ---
unfooled evaluate fashion-mnist/hardened "fashion-mnist-sample[0:50]" --threat linf:0.1 --assert "attacked>=0.68" || [ $? -eq 2 ]
