#: slow
#: fixtures jpeg.py declared.py
# --- plain ---
unfooled evaluate jpeg.py:make "fashion-mnist-sample[0:200]" --threat linf:0.1
# --- declared ---
unfooled evaluate declared.py:make "fashion-mnist-sample[0:200]" --threat linf:0.1
# --- bundled ---
unfooled evaluate fashion-mnist/plain "fashion-mnist-sample[0:200]" --defense median:size=3 --threat linf:0.1
