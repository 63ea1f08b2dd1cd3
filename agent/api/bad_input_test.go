package api

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
)

// bomb is a PNG of a few kilobytes that claims, and holds, side x side pixels.
func bomb(tb testing.TB, side uint32) []byte {
	tb.Helper()
	var idat bytes.Buffer
	z := zlib.NewWriter(&idat)
	row := make([]byte, 1+side/8)
	for range 64 { // a start is enough: the header is refused first
		z.Write(row)
	}
	z.Close()
	out := bytes.NewBufferString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		binary.Write(out, binary.BigEndian, uint32(len(data)))
		body := append([]byte(kind), data...)
		out.Write(body)
		binary.Write(out, binary.BigEndian, crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, side), side)
	chunk("IHDR", append(head, 1, 0, 0, 0, 0))
	chunk("IDAT", idat.Bytes())
	chunk("IEND", nil)
	return out.Bytes()
}

// badMatch lists faulty face matches with the documented answer to each. A missing
// status is 400.
func badMatch(tb testing.TB) map[string]struct {
	fields []field
	status int
	body   string
} {
	jpg := picture(tb, red, 40, 30)
	user, ref := file("user_image", "a.jpg", jpg), file("ref_image", "b.jpg", jpg)
	both := func(more ...field) []field { return append([]field{user, ref}, more...) }
	long := strings.Repeat("é", MaxVendorData+1)
	type row = struct {
		fields []field
		status int
		body   string
	}
	return map[string]row{
		"nothing":             {nil, 400, `{"ref_image":["No file was submitted."],"user_image":["No file was submitted."]}`},
		"no reference":        {[]field{user}, 400, `{"ref_image":["No file was submitted."]}`},
		"no source":           {[]field{file("target_image", "a.jpg", jpg)}, 400, `{"source_image":["No file was submitted."]}`},
		"text for a picture":  {[]field{textField("user_image", "x"), ref}, 400, `{"user_image":["The submitted data was not a file. Check the encoding type on the form."]}`},
		"wrong extension":     {[]field{file("user_image", "a.txt", jpg), ref}, 400, `{"user_image":["File extension “txt” is not allowed. Allowed extensions are: tiff, jpg, jpeg, png, webp."]}`},
		"hostile extension":   {[]field{file("user_image", "a.<b>é", jpg), ref}, 400, `{"user_image":["File extension “<b>é” is not allowed. Allowed extensions are: tiff, jpg, jpeg, png, webp."]}`},
		"6 MB":                {[]field{file("user_image", "a.jpg", make([]byte, 6<<20)), ref}, 400, `{"user_image":["File size should not exceed 5 MB"]}`},
		"one byte over":       {[]field{file("user_image", "a.jpg", make([]byte, MaxImage+1)), ref}, 400, `{"user_image":["File size should not exceed 5 MB"]}`},
		"both over":           {[]field{file("user_image", "a.jpg", make([]byte, 6<<20)), file("ref_image", "a.jpg", make([]byte, 6<<20))}, 400, `{"ref_image":["File size should not exceed 5 MB"],"user_image":["File size should not exceed 5 MB"]}`},
		"20 MB":               {[]field{file("user_image", "a.jpg", make([]byte, 20<<20)), ref}, 413, `{"detail":"Request body is too large."}`},
		"empty picture":       {[]field{file("user_image", "a.jpg", nil), ref}, 400, `{"user_image":["The submitted file is empty."]}`},
		"text as jpg":         {[]field{user, file("ref_image", "a.jpg", []byte("hello hello hello hello"))}, 400, `{"ref_image":["Upload a valid image. Picture \"a.jpg\" is not a JPEG, PNG, WebP or TIFF file, whatever its name says."]}`},
		"cut picture":         {[]field{user, file("ref_image", "b.jpg", jpg[:len(jpg)/2])}, 400, `{"ref_image":["Upload a valid image. Picture \"b.jpg\" is a damaged JPEG file."]}`},
		"HEIC":                {[]field{file("user_image", "a.jpg", []byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")), ref}, 400, `{"user_image":["Upload a valid image. Picture \"a.jpg\" is a HEIC, AVIF or video file; convert it to JPEG."]}`},
		"decompression bomb":  {[]field{file("user_image", "a.png", bomb(tb, 60000)), ref}, 400, `{"user_image":["Upload a valid image. Picture \"a.png\" is 60000x60000 pixels, more than the limit of 25 megapixels."]}`},
		"tiny picture":        {[]field{file("user_image", "a.jpg", picture(tb, red, 4, 4)), ref}, 400, `{"user_image":["Upload a valid image. Picture \"a.jpg\" is 4x4 pixels, too small to hold a face (at least 16x16)."]}`},
		"picture twice":       {both(user), 400, `{"user_image":["This field was sent more than once."]}`},
		"threshold twice":     {both(textField(thresholdField, "1"), textField(thresholdField, "2")), 400, `{"face_match_score_decline_threshold":["This field was sent more than once."]}`},
		"threshold text":      {both(textField(thresholdField, "high")), 400, `{"face_match_score_decline_threshold":["A valid number is required."]}`},
		"threshold empty":     {both(textField(thresholdField, "")), 400, `{"face_match_score_decline_threshold":["A valid number is required."]}`},
		"threshold NaN":       {both(textField(thresholdField, "NaN")), 400, `{"face_match_score_decline_threshold":["A valid number is required."]}`},
		"threshold infinite":  {both(textField(thresholdField, "1e999")), 400, `{"face_match_score_decline_threshold":["A valid number is required."]}`},
		"threshold hex":       {both(textField(thresholdField, "0x1p4")), 400, `{"face_match_score_decline_threshold":["A valid number is required."]}`},
		"threshold above":     {both(textField(thresholdField, "100.01")), 400, `{"face_match_score_decline_threshold":["Ensure this value is less than or equal to 100."]}`},
		"threshold below":     {both(textField(thresholdField, "-0.5")), 400, `{"face_match_score_decline_threshold":["Ensure this value is greater than or equal to 0."]}`},
		"threshold as file":   {both(file(thresholdField, "a.txt", []byte("3"))), 400, `{"face_match_score_decline_threshold":["Not a valid string."]}`},
		"misspelt threshold":  {both(textField("face_match_score_decline_treshold", "90")), 400, `{"face_match_score_decline_treshold":["Unknown field."]}`},
		"flag":                {both(textField("rotate_image", "maybe")), 400, `{"rotate_image":["Must be a valid boolean."]}`},
		"save flag":           {both(textField("save_api_request", "2")), 400, `{"save_api_request":["Must be a valid boolean."]}`},
		"vendor data long":    {both(textField("vendor_data", long)), 400, `{"vendor_data":["Ensure this field has no more than 1024 characters."]}`},
		"vendor data latin 1": {both(textField("vendor_data", "Jos\xe9")), 400, `{"vendor_data":["Not a valid string."]}`},
		"vendor data NUL":     {both(textField("vendor_data", "a\x00b")), 400, `{"vendor_data":["Null characters are not allowed."]}`},
		"metadata no JSON":    {both(textField("metadata", "{flow:login}")), 400, `{"metadata":["Value must be valid JSON."]}`},
		"metadata two values": {both(textField("metadata", "{} {}")), 400, `{"metadata":["Value must be valid JSON."]}`},
		"metadata twice":      {both(textField("metadata", `{"a":1,"a":2}`)), 400, `{"metadata":["Value must be valid JSON."]}`},
		"metadata deep":       {both(textField("metadata", strings.Repeat("[", 100)+strings.Repeat("]", 100))), 400, `{"metadata":["Value must be valid JSON."]}`},
		"metadata long":       {both(textField("metadata", `"`+strings.Repeat("x", MaxMetadata)+`"`)), 400, `{"metadata":["Ensure this value has no more than 16384 bytes."]}`},
		"metadata huge":       {both(textField("metadata", `"`+strings.Repeat("x", maxField)+`"`)), 400, ""},
		"scenario, live key":  {both(textField("sandbox_scenario", "approve")), 400, `{"sandbox_scenario":["Only sandbox keys may name a scenario."]}`},
		"no name":             {both(textField("", "x")), 400, `{"":["Unknown field."]}`},
		"many fields":         {both(make([]field, 20)...), 400, `{"detail":"Multipart form parse error - more than 16 fields."}`},
		"several faults":      {[]field{user, textField(thresholdField, "x"), textField("metadata", "x")}, 400, `{"face_match_score_decline_threshold":["A valid number is required."],"metadata":["Value must be valid JSON."],"ref_image":["No file was submitted."]}`},
	}
}

func TestBadFaceMatch(t *testing.T) {
	b := newBench(t)
	for name, c := range badMatch(t) {
		t.Run(name, func(t *testing.T) {
			w := b.post(t, "/v3/face-match/", c.fields...)
			if c.body == "" {
				if w.Code != c.status {
					t.Errorf("status %d, want %d: %s", w.Code, c.status, w.Body)
				}
			} else {
				want(t, w, c.status, c.body)
			}
		})
	}
	if len(b.saver.saved) != 0 || len(b.saver.media) != 0 {
		t.Errorf("%d requests and %d pictures were stored", len(b.saver.saved), len(b.saver.media))
	}
}

func TestBadOneImage(t *testing.T) {
	b := newBench(t)
	jpg := file("user_image", "a.jpg", picture(t, red, 40, 30))
	for name, c := range map[string]struct {
		path   string
		fields []field
		body   string
	}{
		"liveness without picture":  {"/v3/passive-liveness/", nil, `{"user_image":["No file was submitted."]}`},
		"liveness threshold":        {"/v3/passive-liveness/", []field{jpg, textField(livenessThresholdField, "101")}, `{"face_liveness_score_decline_threshold":["Ensure this value is less than or equal to 100."]}`},
		"liveness, other threshold": {"/v3/passive-liveness/", []field{jpg, textField(thresholdField, "1")}, `{"face_match_score_decline_threshold":["Unknown field."]}`},
		"search type":               {"/v3/face-search/", []field{jpg, textField("search_type", "all")}, `{"search_type":["\"all\" is not a valid choice."]}`},
		"search without picture":    {"/v3/face-search/", []field{textField("search_type", "most_similar")}, `{"user_image":["No file was submitted."]}`},
		"age estimation":            {"/v3/age-estimation/", []field{jpg}, `{"detail":"Age estimation is not available here: no network on this device estimates an age."}`},
	} {
		t.Run(name, func(t *testing.T) { want(t, b.post(t, c.path, c.fields...), 400, c.body) })
	}
}

// raw sends a body as it is.
func (b *bench) raw(method, path, contentType, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return b.do(r, b.token)
}

func TestBadBodies(t *testing.T) {
	b := newBench(t)
	ct, whole := form(t, file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30)))
	none := `{"ref_image":["No file was submitted."],"user_image":["No file was submitted."]}`
	cutShort := `{"detail":"Multipart form parse error - the body is cut short or malformed."}`
	for name, c := range map[string]struct {
		contentType, body string
		status            int
		answer            string
	}{
		"JSON":                {"application/json", "{}", 415, `{"detail":"Unsupported media type \"application/json\" in request."}`},
		"form":                {"application/x-www-form-urlencoded", "a=b", 415, `{"detail":"Unsupported media type \"application/x-www-form-urlencoded\" in request."}`},
		"none":                {"", "", 415, `{"detail":"Unsupported media type \"\" in request."}`},
		"hostile type":        {"text/" + strings.Repeat("x", 500), "", 415, `{"detail":"Unsupported media type \"text/` + strings.Repeat("x", 35) + `\" in request."}`},
		"no boundary":         {"multipart/form-data", string(whole), 400, `{"detail":"Multipart form parse error - the boundary is missing or invalid."}`},
		"other boundary":      {"multipart/form-data; boundary=other", string(whole), 400, none},
		"empty body":          {ct, "", 400, none},
		"half a body":         {ct, string(whole[:len(whole)/2]), 400, cutShort},
		"without its end":     {ct, string(whole[:len(whole)-10]), 400, cutShort},
		"garbage":             {ct, strings.Repeat("\x00\xff", 1000), 400, none},
		"endless part header": {ct, "--" + strings.TrimPrefix(ct, "multipart/form-data; boundary=") + "\r\nContent-Disposition: form-data; name=\"" + strings.Repeat("x", 1<<20), 400, none},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, b.raw(http.MethodPost, "/v3/face-match/", c.contentType, c.body), c.status, c.answer)
		})
	}
	if b.faces.seen != 0 || len(b.saver.saved) != 0 {
		t.Error("something was analysed or stored")
	}
}

// The memory of one request stays near the size of what it may hold.
func TestBodyMemory(t *testing.T) {
	b := newBench(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.post(t, "/v3/face-match/", file("user_image", "a.png", bomb(t, 60000)), file("ref_image", "b.png", bomb(t, 60000)))
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("refusing two bombs allocated %d MB", grown>>20)
	}
}

func TestPaths(t *testing.T) {
	b := newBench(t)
	notFound := `{"detail":"Not found."}`
	for _, path := range []string{"/v3/", "/v3", "/v3//face-match/", "/v3/./face-match/", "/v3/../v3/face-match/", "/v3/face-match//", "/v3/%2e%2e/face-match/",
		"/v3/face-match/..%2f", "/media/../openapi.json", "/media/%2e%2e%2fsecret/", "/media/a%00b", "/media/..%2f..%2fetc%2fpasswd", "/media/", "/nothing",
		"/V3/face-match/", "/v3/face-match/x"} {
		r := httptest.NewRequest(http.MethodGet, "http://example.com"+path, nil)
		w := b.do(r, b.token)
		if w.Code != 404 || w.Body.String() != notFound {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if w.Header().Get("Location") != "" {
			t.Errorf("%s redirects", path)
		}
	}
}

func TestMethods(t *testing.T) {
	b := newBench(t)
	for _, m := range []string{"GET", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "OPTIONS", "BREW"} {
		for _, path := range []string{"/v3/face-match/", "/v3/face-match"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(m, path, nil)
			r.Header.Set("X-Api-Key", b.token)
			b.handler.ServeHTTP(w, r)
			if w.Code != 405 || w.Header().Get("Allow") != "POST" || w.Header().Get("Location") != "" {
				t.Errorf("%s %s: %d, Allow %q", m, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
}

func TestHeaders(t *testing.T) {
	b := newBench(t)
	for id, echoed := range map[string]bool{"abc-1:2.3_4": true, "": false, "a b": false, strings.Repeat("x", 129): false, "a\nb": false} {
		r := httptest.NewRequest(http.MethodGet, "/system/healthcheck", nil)
		r.Header["X-Request-Id"] = []string{id}
		got := b.do(r, "").Header().Get("X-Request-Id")
		if (got == id) != echoed || got == "" {
			t.Errorf("request id %q is answered %q", id, got)
		}
	}
	// A forged Host never becomes part of a link.
	for host, base := range map[string]string{"door.example:8443": "http://door.example:8443", "[::1]:80": "http://[::1]:80", "a/b": "http://localhost",
		"evil\"><script>": "http://localhost", "user@host": "http://localhost", "": "http://localhost"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		if got := b.Base(r); got != base {
			t.Errorf("host %q makes %q", host, got)
		}
	}
}

func TestReadObject(t *testing.T) {
	for body, want := range map[string]string{
		``:                            "",
		`{"a":1}`:                     "",
		`{"a":1,"a":2}`:               `400 {"detail":"JSON parse error - name \"a\" appears twice"}`,
		`{"a":{"b":[{"c":1,"c":1}]}}`: `400 {"detail":"JSON parse error - name \"c\" appears twice"}`,
		`[1]`:                         `400 {"detail":"Invalid data. Expected a dictionary."}`,
		`null`:                        `400 {"detail":"Invalid data. Expected a dictionary."}`,
		`{"a":`:                       `400 {"detail":"JSON parse error - the text ends too early"}`,
		`{"a":1} x`:                   `400 {"detail":"JSON parse error - there is more after the value"}`,
		`{"a":1}{"b":2}`:              `400 {"detail":"JSON parse error - there is more after the value"}`,
		"{\"a\":\"\xff\"}":            `400 {"detail":"JSON parse error - the text is not UTF-8"}`,
		`{a:1}`:                       `400 {"detail":"JSON parse error - invalid character near byte 1"}`,
		strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40): `400 {"detail":"JSON parse error - nested deeper than 32"}`,
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		_, err := ReadObject(r)
		if got := fmt.Sprint(err); (err == nil) != (want == "") || err != nil && got != want {
			t.Errorf("%.60s: %v, want %s", body, err, want)
		}
	}
}

func TestObjectFields(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"s":1,"long":"xxxx","u":"ABC","url":"ftp://x","b":"yes","n":"1","i":1.5,"list":{},"strings":[1],
		"null":null,"blank":"","choice":"z","over":101,"sub":{"x":1},"extra":1}`))
	r.Header.Set("Content-Type", "application/json")
	o, err := ReadObject(r)
	if err != nil {
		t.Fatal(err)
	}
	o.String("s", 9)
	o.String("long", 3)
	o.UUID("u", true)
	o.URL("url", true)
	o.Bool("b", false)
	o.Number("n", 0, 0, 1)
	o.Int("i", 0, 0, 9)
	o.Objects("list", true, 9)
	o.Strings("strings", 9, 9)
	o.Required("null", 9)
	o.Required("blank", 9)
	o.Required("missing", 9)
	o.Choice("choice", false, "a", "b")
	o.Number("over", 0, 0, 100)
	sub := o.Sub("sub")
	sub.String("x", 9)
	o.Join("sub", sub)
	o.RefuseUnknown()
	want := `400 {"b":["Must be a valid boolean."],"blank":["This field may not be blank."],"choice":["\"z\" is not a valid choice."],"extra":["Unknown field."],` +
		`"i":["A valid integer is required."],"list":["Expected a list of items."],"long":["Ensure this field has no more than 3 characters."],"missing":["This field is required."],` +
		`"n":["A valid number is required."],"null":["This field may not be null."],"over":["Ensure this value is less than or equal to 100."],"s":["Not a valid string."],` +
		`"strings":["Not a valid string."],"sub.x":["Not a valid string."],"u":["Must be a valid UUID."],"url":["Enter a valid URL."]}`
	if got := fmt.Sprint(o.Err()); got != want {
		t.Errorf("faults\n%s\nwant\n%s", got, want)
	}
}
