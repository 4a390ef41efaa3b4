#: slow
unfooled train fashion-mnist-sample --recipe ibp-fashion-mnist --epochs 2 --out certified.safetensors
unfooled evaluate certified-cnn "fashion-mnist-sample[0:50]" --weights certified.safetensors --threat linf:0.01 --protocol quick --certify auto
