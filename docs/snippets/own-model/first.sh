#: slow
#: fixtures photos net.py net.safetensors
unfooled doctor net.py:make photos/ --weights net.safetensors        # what was understood, in one screen, and what is wrong
unfooled evaluate net.py:make photos/ --weights net.safetensors --threat linf:4/255
