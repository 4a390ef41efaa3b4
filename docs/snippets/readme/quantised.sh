#: slow
#: fixtures examples
unfooled evaluate examples/quantised.py:make "fashion-mnist-sample[0:200]" --threat linf:0.1
