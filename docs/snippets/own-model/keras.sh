#: slow
#: packages keras
#: fixtures photos net.keras
unfooled evaluate net.keras photos/ --threat linf:4/255 --model-option scale=255
