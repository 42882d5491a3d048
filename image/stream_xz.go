package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/berth-containers/berth/errdefs"
)

// xzDictionary bounds the memory a reader of xz takes. `xz -9` needs 64 MiB; the
// format allows 4 GiB.
const xzDictionary = 256 << 20

// newXZ reads an xz stream, unless its first block (writers give all blocks the
// same) asks for too much memory.
func newXZ(b *bufio.Reader) (io.ReadCloser, error) {
	head, err := b.Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if size := xzDictionarySize(head); size > xzDictionary {
		return nil, errdefs.WithHint(
			errdefs.As(errdefs.ErrInvalid, fmt.Errorf("reading it would take %d MiB of memory", size>>20)),
			"decompress it with xz, or compress it again with a smaller dictionary")
	}
	x, err := xz.NewReader(b)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	return io.NopCloser(x), nil
}

// xzDictionarySize finds the dictionary's size in the first block header after
// the stream's twelve bytes; 0 when there is none to be seen.
// https://tukaani.org/xz/xz-file-format.txt section 3.1
func xzDictionarySize(head []byte) int64 {
	const streamHeader, lzma2 = 12, 0x21
	if len(head) < streamHeader+2 {
		return 0
	}
	flags, rest := head[streamHeader+1], head[streamHeader+2:]
	number := func() (n uint64) {
		n, size := binary.Uvarint(rest)
		rest = rest[max(size, 0):]
		return n
	}
	for _, present := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&present != 0 {
			number()
		}
	}
	for range flags&3 + 1 {
		id, size := number(), number()
		if id == lzma2 && size == 1 && len(rest) > 0 {
			n, err := lzma.DecodeDictCap(rest[0])
			if err != nil {
				return 0
			}
			return n
		}
		rest = rest[min(size, uint64(len(rest))):]
	}
	return 0
}
