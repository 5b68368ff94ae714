"""Joint source-channel codecs of pictures, each a file that registers itself."""
