#: fixtures provable.py
unfooled certify provable.py:make "fashion-mnist-sample[0:20]" --threat l2:0.1 --method smoothing:sigma=0.25,draws=1000 --curve 0
