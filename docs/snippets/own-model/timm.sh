#: slow
#: packages timm
#: fixtures photos mobilenet.safetensors
unfooled evaluate timm:mobilenetv3_small_050 photos/ --weights mobilenet.safetensors --threat linf:4/255
