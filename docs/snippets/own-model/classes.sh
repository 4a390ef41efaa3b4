#: slow
#: fixtures clothes fashion.py
unfooled evaluate fashion.py:make clothes/ --threat linf:0.1 --classes bag=8,boot=9,coat=4,dress=3
