#: fixtures provable.py
# --- first ---
unfooled certify provable.py:make "fashion-mnist-sample[0:50]" --threat linf:2/255
# --- methods ---
unfooled certify provable.py:make "fashion-mnist-sample[0:50]" --threat l2:0.1 --method ibp,crown --curve 20 --out runs/proved
unfooled list certificates
