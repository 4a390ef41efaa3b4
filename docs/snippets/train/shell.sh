#: slow
unfooled list recipes
unfooled train fashion-mnist-sample --recipe n-fgsm --epochs 2 --out hardened.safetensors
unfooled train fashion-mnist-sample --recipe trades --epochs 1 --set average=0.999 --set awp=0.005 --out better.safetensors
unfooled evaluate seed-cnn "fashion-mnist-sample[0:50]" --weights hardened.safetensors --threat linf:0.1 --protocol quick
