"""The text that the demo's tokenizer learns its words from: plain English about pictures, numbers and running a service.

A few hundred different words, most of them more than once: enough for whole words to become tokens, so that what a model
without knowledge strings together still reads as words.
"""

from __future__ import annotations

CORPUS = """\
The picture shows a red square on a white table. A small blue circle lies below the square, and a green triangle stands to the right of it.
There are three yellow stars above the line. What colour is the large shape on the left? The large shape on the left is orange.
How many circles are in the image? There are five circles: two black, one white, one purple and one brown.
A dog runs across the grass while two children play with a ball near the old tree. The sky is clear, the sun is low and the light is warm.
A woman in a long coat walks along the street with an open umbrella. Behind her stand a bus, a car and a bicycle. It is raining.
The kitchen has a round clock on the wall, a window over the sink, and a bowl of fruit on the table: apples, pears and a banana.
A cat sleeps on a chair beside a pile of books. The room is dark, but a lamp in the corner gives a soft light.

Describe the video in one sentence. First a ball moves from left to right, then it stops, turns and moves back. At the end the ball is gone.
The camera follows a train through a valley. After a few seconds the train enters a tunnel, and the screen goes dark.
In the first frame the door is closed; in the last frame it is open and a man looks out. The second frame shows his hand.
A boat crosses the lake from the north shore to the south shore. Birds fly over the water. The mountain behind the lake has snow on its top.
When does the light change? The light changes after four seconds, from red to green, and the cars begin to move.

Read the text in the picture. The sign says: open from nine to five, closed on Sunday. The label on the box says: keep this side up.
The form has a name, a date, a number and a total. The name is not clear. The date is the first of March. The total is 128.50.
The chart compares four months. Sales rise from January to March and fall in April. The highest bar is 75, the lowest bar is 20.
The table has three columns and ten rows. The first column holds the names, the second holds the prices, the third holds the dates.
Find the point where the lines cross. The lines cross near the middle of the picture, at about (0.5, 0.4).
Give the box of each person as JSON: [{"label": "person", "box": [10, 20, 110, 220]}, {"label": "person", "box": [130, 25, 210, 230]}].

Let me think about the question. I first look at the whole image, then at each part. I see two shapes that are alike, so I count them once more.
The user asks for the number of people. One stands in front, two sit on the bench, and another one may be hidden behind the tree. So the answer is four.
I should check the result before I answer. If the sum is right, then the difference must be zero. It is zero, so the result is right.
Maybe the picture was taken in winter, because the trees have no leaves. But the grass is green, so it could also be early spring.
Wait, the question is about the second image, not the first. In the second image the cup is empty, and the plate is full.
We know that each side is six, so the area is 36. Half of that is 18. A third of that is 12. Therefore the answer is 12.
That seems strange, but it is possible. It would be better to say that the detail is not visible than to guess.

A service starts, loads its weights, and says that it is ready. A request comes in, waits for its turn, runs, and gets an answer.
If the memory is full, new requests wait. If a process dies, the service starts it again. When the service stops, it lets running requests finish.
Open the log to see what happened. The last line names the error and the next command to try. Stop the service, change the setting, start again.
The model reads the prompt, sees the image, thinks for a while, and writes its answer word by word. A long answer takes more time than a short one.
Every number has a unit: seconds, bytes, tokens, degrees. One thousand bytes are a kilobyte; a million bytes are a megabyte.

{"name": "get_weather", "arguments": {"city": "Berlin", "unit": "celsius"}}
{"name": "find_images", "arguments": {"query": "a red car", "limit": 3, "newest": true}}
{"answer": "yes", "reason": "The light is on.", "score": 0.9, "items": ["lamp", "table", "chair"], "empty": null, "found": false}

- one: the front of the house, with a garden and a gate
- two: the back of the house, with a large window
- three: the road, the bridge and the river beyond

1. Open the file.
2. Read each line.
3. Write the result.

Good morning! Can you help me? Yes, of course. Please show me the picture, and tell me what you would like to know.
Thank you, that is very kind. You are welcome. Is there anything else? No, that is all for today. Good night!
Where is the station? Go straight on, turn left at the church, and then take the second street on the right. It is not far.
Who wrote this? I do not know who wrote it. Why is it here? Someone put it here last week, under the stone, for us to find.
What is the difference between the two pictures? In the left picture the man wears a hat, and in the right picture he does not.
Which animal is it? It is a horse. It has four legs, a long neck, a brown body and a black tail. Next to it stand a cow and a sheep.
He is happy, she is sad, and they are tired. We are young; you are old. The baby laughs, the girl smiles, the boy cries.
Fish swim, birds sing, stars shine, rivers flow, winds blow, bells ring, fires burn, clouds pass and seasons change.
The paper is thin, the wood is thick, the iron is heavy, the feather is light, the glass is clean and the floor is dusty.
A plane flies high above the city. Far below, the houses are as small as toys, the roads are threads, and the sea is a mirror.
"""
