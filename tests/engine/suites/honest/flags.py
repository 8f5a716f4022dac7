FLAG = "original"
