// Package inference turns a frame into a probe: it finds the face that the
// picture is about, aligns it, measures its quality and embeds it.
//
// The steps, each in its own file:
//
//	detect.go    BlazeFace: letterbox, anchors, box decoding, weighted NMS
//	landmarks.go face mesh on the rotated face region, five points, head pose
//	align.go     five-point similarity to the 112x112 template
//	quality.go   luminance, contrast, sharpness on the aligned face
//	embed.go     the embedding network
//	pipeline.go  the order of the above; Pool for several at once
//
// Which network, its colour order, normalisation and outputs come from the
// manifests in package models. What executes a network is an Engine: LiteRT in
// inference/litert.
package inference
