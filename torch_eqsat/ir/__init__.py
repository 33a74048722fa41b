"""The tensor language: types, operators and hash-consed terms. Free of torch."""
