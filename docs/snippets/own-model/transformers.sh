#: slow
#: packages transformers
#: fixtures photos vit
unfooled evaluate hf:vit/ photos/ --threat linf:4/255                # the folder that save_pretrained wrote
