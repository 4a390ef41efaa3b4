#: slow
#: packages sklearn skops
#: fixtures svc.skops rows.npz
unfooled evaluate svc.skops rows.npz --threat l2:0.5
