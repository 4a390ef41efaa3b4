#: slow
#: fixtures photos net.pt2 net.pt
unfooled evaluate net.pt photos/ --threat linf:4/255                 # TorchScript
unfooled evaluate net.pt2 photos/ --threat linf:4/255 --allow-code   # torch.export
